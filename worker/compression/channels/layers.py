"""Layers that sum over channels, seen as one linear map: rows of inputs times a matrix."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from worker.compression.channels.groups import Cut, Structure
from worker.compression.channels.trace import Shape

# What a refit aims at: outputs of the graph (patch), or the lost inputs themselves (channel),
# or what the weights made of the inputs, which the graph does not show (gates).
Mode = Literal["patch", "channel", "gates"]


@dataclass(frozen=True)
class Window:
    """Where a convolution looks."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """One consumer of channels: y = W x + b, at every position.

    `target` is the value that a refit aims at: y, after a bias that is a node of its own and
    after a residual sum whose other operand `shortcut` is known before the layer runs.
    `bias` names the initializer that holds it; None where there is none yet.
    """

    node: str
    op: str
    x: str
    target: str
    weight: str
    sum_axis: int
    bias: str | None
    takes_bias: bool
    shortcut: str | None
    groups: int
    mode: Mode
    window: Window | None

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The weight as (groups, rows, columns), rows in the order of `rows`."""
        if self.op in ("MatMul", "Gemm"):
            return np.expand_dims(np.moveaxis(weight, self.sum_axis, 0), 0)
        if self.op == "ConvTranspose" or self.mode == "channel":
            return np.moveaxis(weight, self.sum_axis, 0).reshape(
                1, weight.shape[self.sum_axis], -1
            )
        per_group = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        return np.swapaxes(per_group, 1, 2)

    def restored(self, matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
        """The inverse of `matrix`."""
        if self.op in ("MatMul", "Gemm"):
            return np.moveaxis(matrix[0], 0, self.sum_axis)
        if self.op == "ConvTranspose" or self.mode == "channel":
            moved = np.moveaxis(like, self.sum_axis, 0).shape
            return np.moveaxis(matrix[0].reshape(moved), 0, self.sum_axis)
        return np.swapaxes(matrix, 1, 2).reshape(like.shape)

    def row_labels(self, structure: Structure) -> np.ndarray:
        """The unit that each row of the matrix belongs to, before anything is cut."""
        labels = structure.axes[self.weight][self.sum_axis]
        if self.mode == "channel" or self.window is None or self.op == "ConvTranspose":
            return labels
        return np.repeat(labels, math.prod(self.window.kernel))

    def kept_columns(self, structure: Structure, cut: Cut) -> np.ndarray:
        """Outputs of one conv group that stay."""
        axis = -1 if self.window is None else 1
        made: np.ndarray = structure.kept(self.target, axis, cut).reshape(self.groups, -1)[0]
        return made

    def positions(self, x: Shape, target: Shape) -> int:
        """How many rows one sample offers."""
        if self.op in ("MatMul", "Gemm"):
            return math.prod(x[:-1])
        grid = x if self.mode == "channel" else target
        return grid[0] * math.prod(grid[2:])

    def inputs_at(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Rows of inputs (positions, groups, rows)."""
        if self.op in ("MatMul", "Gemm"):
            return np.expand_dims(x.reshape(-1, x.shape[-1])[positions], 1)
        if self.mode == "channel" or self.window is None:
            return np.expand_dims(channels_at(x, positions), 1)
        rows = patches_at(x, positions, self.window)
        return rows.reshape(len(positions), self.groups, -1)

    def outputs_at(self, target: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Rows of outputs (positions, groups, columns)."""
        if self.op in ("MatMul", "Gemm"):
            return np.expand_dims(target.reshape(-1, target.shape[-1])[positions], 1)
        return channels_at(target, positions).reshape(len(positions), self.groups, -1)

    def passed_on(self, lost: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """What a constant per input channel (groups, channels) adds to each output."""
        taps = np.moveaxis(weight, self.sum_axis, 0)
        per_output = taps.reshape(taps.shape[0], taps.shape[1], -1).sum(axis=2)
        if self.op == "ConvTranspose" and self.window is not None:
            per_output = per_output / np.prod(self.window.strides)
        made: np.ndarray = lost[0] @ per_output
        return made

    def biased(self, bias: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """The bias plus a shift of each column of the matrix."""
        flat = shift.ravel()
        if flat.size != bias.size:
            # Taps of a convolution by channel: each output has several columns.
            flat = flat.reshape(bias.size, -1).sum(axis=1)
        made: np.ndarray = (bias.ravel() + flat).reshape(bias.shape).astype(bias.dtype)
        return made


def channels_at(x: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """All channels at flat positions of (batch, *space)."""
    index = np.unravel_index(positions, (x.shape[0], *x.shape[2:]))
    found: np.ndarray = np.moveaxis(x, 1, -1)[index]
    return found


def patches_at(x: np.ndarray, positions: np.ndarray, window: Window) -> np.ndarray:
    """Flattened (channels, *kernel) patches under flat output positions."""
    padding = [(0, 0), (0, 0), *zip(window.begins, window.ends, strict=True)]
    padded = np.pad(x, padding) if any(map(any, padding)) else x
    out = [
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, dilation in zip(
            padded.shape[2:], window.kernel, window.strides, window.dilations, strict=True
        )
    ]
    sample, *starts = np.unravel_index(positions, (x.shape[0], *out))
    dimensions = len(out)
    taps = []
    for axis in range(dimensions):
        reach = np.arange(window.kernel[axis]) * window.dilations[axis]
        index = (starts[axis] * window.strides[axis])[:, None] + reach
        shape = [len(positions)] + [1] * dimensions
        shape[axis + 1] = window.kernel[axis]
        taps.append(index.reshape(shape))
    picked = np.moveaxis(padded, 1, -1)[(sample.reshape(-1, *[1] * dimensions), *taps)]
    rows: np.ndarray = np.moveaxis(picked, -1, 1).reshape(len(positions), -1)
    return rows
