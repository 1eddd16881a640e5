"""Layers that sum over channels, seen as one linear map: rows of inputs times a matrix."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from worker.compression.channels.groups import Structure
from worker.compression.channels.trace import Shape

# Above this many inputs of one output (channels times taps) the Gram is kept by channel only.
FULL_ROWS = 2304

Mode = Literal["patch", "channel"]


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


def consumers(model: ir.Model, structure: Structure) -> list[Layer]:
    """Every layer that sums over prunable channels, in graph order.

    A weight that serves several nodes is left out: one refit cannot fit two places.
    """
    uses = {use.node: use for group in structure.groups for use in group.consumers}
    order = {node.name: position for position, node in enumerate(model.graph)}
    found = []
    for node in model.graph:
        use = uses.get(node.name or "")
        if use is None or node.op_type not in _OPS:
            continue
        weight = model.graph.initializers[use.place.value]
        if len(list(weight.uses())) > 1:
            continue
        layer = _layer(node, use.place.axis, structure, order)
        if layer is not None:
            found.append(layer)
    return found


_OPS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def _layer(
    node: ir.Node, axis: int, structure: Structure, order: dict[str | None, int]
) -> Layer | None:
    x, weight = node.inputs[0], node.inputs[1]
    y = node.outputs[0]
    if x is None or weight is None or weight.const_value is None or x.const_value is not None:
        return None
    if node.op_type == "Gemm" and _unusual_gemm(node):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and (node.op_type == "MatMul" or not _is_vector(bias)):
        return None
    if node.op_type == "MatMul":
        y, bias = _after_bias(node)
    target, shortcut = _after_sum(y, node, structure, order)
    shape = tuple(weight.const_value.shape.numpy())
    window = _window(node, shape, structure.trace.shapes[x.name or ""])
    groups = node.attributes.get_int("group", 1)
    wide = shape[axis] * math.prod(window.kernel if window else ()) > FULL_ROWS
    by_channel = node.op_type == "ConvTranspose" or (window is not None and wide)
    if by_channel and groups > 1:
        return None
    return Layer(
        node=node.name or "",
        op=node.op_type,
        x=x.name or "",
        target=(y if by_channel else target).name or "",
        weight=weight.name or "",
        sum_axis=axis,
        bias=None if bias is None else bias.name,
        takes_bias=bias is not None or node.op_type != "MatMul",
        shortcut=None if by_channel else shortcut,
        groups=groups,
        mode="channel" if by_channel else "patch",
        window=window,
    )


def _unusual_gemm(node: ir.Node) -> bool:
    factors = (node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0))
    return node.attributes.get_int("transA", 0) == 1 or factors != (1.0, 1.0)


def _is_vector(value: ir.Value) -> bool:
    if value.const_value is None:
        return False
    shape = value.const_value.shape.numpy()
    return math.prod(shape) == (shape[-1] if shape else 1)


def _after_bias(node: ir.Node) -> tuple[ir.Value, ir.Value | None]:
    """The sum with a constant vector right after a MatMul, and that vector."""
    y = node.outputs[0]
    reader = _only_reader(y)
    if reader is None or reader.op_type != "Add":
        return y, None
    other = reader.inputs[1] if reader.inputs[0] is y else reader.inputs[0]
    if other is None or not _is_vector(other) or len(list(other.uses())) > 1:
        return y, None
    return reader.outputs[0], other


def _after_sum(
    y: ir.Value, node: ir.Node, structure: Structure, order: dict[str | None, int]
) -> tuple[ir.Value, str | None]:
    """The residual sum that the layer feeds, where the other operand is there before it."""
    reader = _only_reader(y)
    if reader is None or reader.op_type != "Add":
        return y, None
    other = reader.inputs[1] if reader.inputs[0] is y else reader.inputs[0]
    if other is None or other.const_value is not None:
        return y, None
    shapes = structure.trace.shapes
    if shapes.get(other.name or "") != shapes.get(y.name or ""):
        return y, None
    producer = other.producer()
    if producer is None or order.get(producer.name, len(order)) > order[node.name]:
        return y, None
    return reader.outputs[0], other.name


def _only_reader(value: ir.Value) -> ir.Node | None:
    uses = list(value.uses())
    return uses[0][0] if len(uses) == 1 and not value.is_graph_output() else None


def _window(node: ir.Node, weight: Sequence[int], x: Shape) -> Window | None:
    if node.op_type not in ("Conv", "ConvTranspose"):
        return None
    kernel = tuple(weight[2:])
    ones = [1] * len(kernel)
    strides = tuple(node.attributes.get_ints("strides", ones))
    dilations = tuple(node.attributes.get_ints("dilations", ones))
    pads = list(node.attributes.get_ints("pads", [0] * 2 * len(kernel)))
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same(x[2:], kernel, strides, dilations, upper=mode == "SAME_UPPER")
    half = len(kernel)
    return Window(kernel, strides, dilations, tuple(pads[:half]), tuple(pads[half:]))


def _same(
    space: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    upper: bool,
) -> list[int]:
    """Padding of auto_pad SAME for one input size."""
    totals = [
        max(0, (-(-size // step) - 1) * step + dilation * (taps - 1) + 1 - size)
        for size, taps, step, dilation in zip(space, kernel, strides, dilations, strict=True)
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return small + large if upper else large + small
