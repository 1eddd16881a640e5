"""The pilot: a ResNet-14 that tells hard augmented digits apart, wide and narrow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

WIDTHS = {"wide": (32, 64, 128), "narrow": (8, 16, 32)}
SIDE = 16
TEST_COPIES = 5
_SPLIT = 1200


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.short = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(y)) + self.short(x))


class Pilot(nn.Module):
    """Stem, three stages of two blocks, one linear layer: 26 MMAC when wide."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 3, 1, 1)
        blocks, inputs = [], widths[0]
        for stage, width in enumerate(widths):
            blocks += [Block(inputs, width, 2 if stage else 1), Block(width, width, 1)]
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.blocks(functional.relu(self.stem(x))).mean((2, 3)))


def digits(train: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain 8x8 digits, one side of a fixed split."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    chosen = order[:_SPLIT] if train else order[_SPLIT:]
    images = torch.tensor(data.images[chosen] / 16, dtype=torch.float32)[:, None]
    return images, torch.tensor(data.target[chosen])


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Turned, scaled, sheared, moved and noisy copies, 16x16."""
    count = len(images)

    def draw(reach: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * reach

    angle, scale, shear = draw(0.6), torch.exp(draw(0.25)), draw(0.3)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    matrix = torch.stack(
        [
            torch.stack([cos, -sin + shear, draw(0.25)], 1),
            torch.stack([sin, cos, draw(0.25)], 1),
        ],
        1,
    )
    grid = functional.affine_grid(matrix, [count, 1, SIDE, SIDE], align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    noise = torch.randn(moved.shape, generator=generator) * 0.2
    contrast = 1 + draw(0.3)[:, None, None, None]
    return moved * contrast + noise


def test_set() -> tuple[np.ndarray, np.ndarray]:
    """Held-out digits, several augmented copies each."""
    images, labels = digits(train=False)
    generator = torch.Generator().manual_seed(1)
    copies = [augmented(images, generator) for _ in range(TEST_COPIES)]
    return torch.cat(copies).numpy(), labels.repeat(TEST_COPIES).numpy()


def calibration_set(count: int) -> np.ndarray:
    """Unlabelled augmented training digits."""
    images, _ = digits(train=True)
    generator = torch.Generator().manual_seed(2)
    return augmented(images[:count], generator).numpy()


def trained(name: str, folder: Path, *, epochs: int = 24) -> Path:
    """The trained net as ONNX; trained where it is not there yet (minutes)."""
    path = folder / f"{name}.onnx"
    if path.exists():
        return path
    torch.manual_seed(0)
    net = Pilot(WIDTHS[name])
    _train(net, epochs)
    folder.mkdir(parents=True, exist_ok=True)
    example = torch.zeros(1, 1, SIDE, SIDE)
    torch.onnx.export(
        net.eval(),
        (example,),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )
    return path


def _train(net: Pilot, epochs: int) -> None:
    images, labels = digits(train=True)
    generator = torch.Generator().manual_seed(0)
    repeat = 4
    steps = epochs * repeat * -(-len(images) // 64)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(epochs * repeat):
        order = torch.randperm(len(images), generator=generator)
        for part in order.split(64):
            loss = functional.cross_entropy(
                net(augmented(images[part], generator)), labels[part], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
