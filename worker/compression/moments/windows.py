"""What a Conv reads at each of its positions: patches, of any rank, at drawn positions."""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

# Bytes of patches that are gathered at once.
_GATHERED_BYTES = 32_000_000


@dataclass(frozen=True)
class Window:
    """The spatial attributes of a Conv; `pads` is None where `auto_pad` derives them."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    upper: bool

    def patches(self, x: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
        """Patches (positions, channels, taps) of x (batch, channels, *spatial), zero-padded."""
        padded, sizes = self._padded(x)
        count = len(x) * math.prod(sizes)
        chosen = np.arange(count)
        most = min(most, max(1, _GATHERED_BYTES // (4 * x.shape[1] * math.prod(self.kernel))))
        if count > most:
            chosen = np.sort(rng.choice(count, most, replace=False))
        batch, *position = np.unravel_index(chosen, (len(x), *sizes))
        taps = np.indices(self.kernel).reshape(len(self.kernel), -1)
        places = tuple(
            (where * stride)[:, None] + tap[None] * dilation
            for where, stride, tap, dilation in zip(
                position, self.strides, taps, self.dilations, strict=True
            )
        )
        # The channels go last, so that the indices stand side by side.
        found = np.moveaxis(padded, 1, -1)[(batch[:, None], *places)]
        return np.swapaxes(found, 1, 2)

    def _padded(self, x: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
        """The input with its padding, and the spatial size of the output."""
        spans = [
            dilation * (kernel - 1) + 1
            for kernel, dilation in zip(self.kernel, self.dilations, strict=True)
        ]
        pads = self._pads(x.shape[2:], spans)
        if any(before or after for before, after in pads):
            x = np.pad(x, [(0, 0), (0, 0), *pads])
        sizes = tuple(
            max(0, size - span) // stride + 1
            for size, span, stride in zip(x.shape[2:], spans, self.strides, strict=True)
        )
        return x, sizes

    def _pads(self, sizes: tuple[int, ...], spans: list[int]) -> list[tuple[int, int]]:
        rank = len(sizes)
        if self.pads is not None:
            return [(self.pads[axis], self.pads[axis + rank]) for axis in range(rank)]
        made = []
        for size, span, stride in zip(sizes, spans, self.strides, strict=True):
            whole = max(0, (-(-size // stride) - 1) * stride + span - size)
            small, large = whole // 2, whole - whole // 2
            made.append((small, large) if self.upper else (large, small))
        return made


def window(node: ir.Node, kernel: tuple[int, ...]) -> Window:
    """The window of a Conv node with a kernel of the given shape."""
    rank = len(kernel)
    kind = node.attributes.get_string("auto_pad", "NOTSET")
    given = node.attributes.get_ints("pads", ()) or [0] * (2 * rank)
    pads = [0] * (2 * rank) if kind == "VALID" else given
    same = kind in ("SAME_UPPER", "SAME_LOWER")
    return Window(
        kernel=kernel,
        strides=tuple(node.attributes.get_ints("strides", ()) or [1] * rank),
        dilations=tuple(node.attributes.get_ints("dilations", ()) or [1] * rank),
        pads=None if same else tuple(pads),
        upper=kind == "SAME_UPPER",
    )
