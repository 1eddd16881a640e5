"""Small torch modules, saved as people save them: scripted, traced, pickled, pruned."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn


@contextmanager
def quiet() -> Iterator[None]:
    """What torch says of its own TorchScript is not what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def scripted(module: nn.Module, path: Path) -> Path:
    with quiet():
        torch.jit.script(module.eval()).save(str(path))
    return path


def traced(module: nn.Module, path: Path, *example: Tensor) -> Path:
    with quiet():
        torch.jit.trace(module, example, check_trace=False, strict=False).save(str(path))
    return path


class ConvNet(nn.Module):
    """Conv, BatchNorm with statistics of its own, and a linear layer without bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer1 = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 5)
        self.head = nn.Linear(5, 5, bias=False)
        with torch.no_grad():
            self.layer1[1].running_mean.normal_()
            self.layer1[1].running_var.uniform_(0.5, 2)
            self.layer1[1].weight.normal_()

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer1(x).mean(dim=[2, 3])
        return self.head(self.drop(self.fc(y)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 3, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y, (h, _) = self.lstm(x)
        return y, h


class Text(nn.Module):
    """Two inputs of whole numbers; tuple, list and dict in what it returns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 4)
        self.out = nn.Linear(4, 2)

    def forward(
        self, ids: Tensor, mask: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        y = self.table(ids) * mask.unsqueeze(-1)
        return self.out(y.sum(1)), {"tokens": y, "most": y.amax(1)}, [y.sum(2)]


class Pair(NamedTuple):
    logits: Tensor
    extra: Tensor | None


class Optional(nn.Module):
    def forward(self, x: Tensor) -> tuple[Pair, Tensor | None]:
        return Pair(x * 2, x + 1), None


class Branch(nn.Module):
    """Which layer runs depends on the values, and one runs in a loop."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up = nn.Linear(4, 4)
        self.down = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() > 0):
            return self.up(x)
        for _ in range(x.size(1)):
            x = self.down(x)
        return x


class Plain(nn.Module):
    """Arguments that are no tensors."""

    def forward(
        self,
        x: Tensor,
        rate: int,
        sizes: list[float],
        mode: str = "soft",
        bias: Tensor | None = None,
    ) -> Tensor:
        y = x * sizes[0] + sizes[1]
        if rate > 8000:
            y = y * 2
        if mode == "hard":
            y = y.sign()
        return y if bias is None else y + bias


class Running(nn.Module):
    """State in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.state = self.state * 0.5 + x
        return self.state


class Counting(nn.Module):
    """State in an attribute."""

    calls: int

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class OneAtATime(nn.Module):
    """A reshape that only one batch size fits."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x.reshape(1, 8))


class Unconvertible(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.i0e(x)


class TakesTuple(nn.Module):
    def forward(self, pair: tuple[Tensor, Tensor]) -> Tensor:
        return pair[0] + pair[1]


class ReturnsNumber(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x, x.size(0)


class Attention(nn.Module):
    """Layers that are equal at first, as copies are, and yet not one."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x)


class WithState(nn.Module):
    """A GRU whose state goes in and out: its batch is the second axis."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru = nn.GRU(4, 5, 2, batch_first=True)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        return self.gru(x, h)


class Constants(nn.Module):
    """Constants at the top and in a layer, which the exporter names alike."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 4)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norm(x)
        return self.pool(y).flatten(1), nn.functional.gelu(y).sort(1)[0]


class Chosen(nn.Module):
    """The size of the output depends on the values."""

    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


class Strict(nn.Module):
    """Refuses some values."""

    def forward(self, x: Tensor) -> Tensor:
        if bool((x > 1).any()):
            raise ValueError("values must be at most 1")
        return x * 2
