"""Well-known networks with seeded random weights, as ONNX: for figures of time and memory.

`python -m benchmarks.networks NAME FILE` writes one; a process of its own keeps torch out of
what is measured.
"""

import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

IMAGE = (1, 3, 224, 224)
TOKENS = (1, 197, 384)


class Residual(nn.Module):
    """relu(branch(x) + shortcut(x)); without `activation` the sum itself."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.activation = branch, shortcut, activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.branch(x) + self.shortcut(x))


class Attention(nn.Module):
    """Multi-head self-attention, written out as exporters do."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.qkv, self.out, self.heads = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            heads,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).chunk(3, -1)
        shape = (batch, tokens, self.heads, width // self.heads)
        q, k, v = (part.reshape(shape).transpose(1, 2) for part in (q, k, v))
        scores = (q @ k.transpose(2, 3)) * (width // self.heads) ** -0.5
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width))


def conv(
    given: int, made: int, size: int = 1, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    layer = nn.Conv2d(given, made, size, stride, size // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    # It takes a depthwise filter for a dense one, by which signals would die out.
    layer.weight.data *= groups**0.5
    return [layer, nn.BatchNorm2d(made)]


def resnet(blocks: tuple[int, ...], *, bottleneck: bool) -> nn.Module:
    """ResNet of He et al. 2015, with stride on the 3x3 convolution."""
    layers = [*conv(3, 64, 7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    given = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        made = 4 * width if bottleneck else width
        for position in range(count):
            stride = 2 if stage and not position else 1
            if bottleneck:
                branch = [*conv(given, width), nn.ReLU(), *conv(width, width, 3, stride=stride)]
                branch += [nn.ReLU(), *conv(width, made)]
            else:
                branch = [*conv(given, made, 3, stride=stride), nn.ReLU(), *conv(made, made, 3)]
            same = given == made and stride == 1
            shortcut = (
                nn.Identity() if same else nn.Sequential(*conv(given, made, stride=stride))
            )
            layers.append(Residual(nn.Sequential(*branch), shortcut, nn.ReLU()))
            given = made
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(given, 1000)]
    return nn.Sequential(*layers, *head)


def mobilenet_v2() -> nn.Module:
    """Sandler et al. 2018, width 1."""
    layers = [*conv(3, 32, 3, stride=2), nn.ReLU6()]
    given = 32
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1)]
    for expansion, made, count, first in [*plan, (6, 160, 3, 2), (6, 320, 1, 1)]:
        for position in range(count):
            stride, wide = (first if not position else 1), given * expansion
            branch = [*conv(given, wide), nn.ReLU6()] if expansion > 1 else []
            branch += [*conv(wide, wide, 3, stride=stride, groups=wide), nn.ReLU6()]
            block = nn.Sequential(*branch, *conv(wide, made))
            same = given == made and stride == 1
            layers.append(Residual(block, nn.Identity(), nn.Identity()) if same else block)
            given = made
    head = [*conv(320, 1280), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, *head, nn.Linear(1280, 1000))


def vit_small(layers: int = 4, width: int = 384) -> nn.Module:
    """A few layers of the encoder of ViT-S (Dosovitskiy et al. 2020), on 197 tokens."""
    blocks: list[nn.Module] = []
    for _ in range(layers):
        attention = nn.Sequential(nn.LayerNorm(width), Attention(width, 6))
        wide = [nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)]
        branches = (attention, nn.Sequential(nn.LayerNorm(width), *wide))
        blocks += [Residual(branch, nn.Identity(), nn.Identity()) for branch in branches]
    return nn.Sequential(*blocks, nn.LayerNorm(width))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "ResNet-18": (lambda: resnet((2, 2, 2, 2), bottleneck=False), IMAGE),
    "ResNet-50": (lambda: resnet((3, 4, 6, 3), bottleneck=True), IMAGE),
    "MobileNetV2": (mobilenet_v2, IMAGE),
    "ViT-S-like": (vit_small, TOKENS),
}


def write(name: str, path: Path) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    module = build().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter that it is the older one
        torch.onnx.export(
            module, (torch.zeros(shape),), str(path), input_names=["x"], output_names=["y"],
            opset_version=17, dynamo=False,
        )  # fmt: skip


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
