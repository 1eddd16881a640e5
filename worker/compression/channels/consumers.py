"""Finds the layers that sum over channels that may go, and what their refits aim at."""

import math
from collections.abc import Sequence

import onnx_ir as ir

from worker.compression.channels.groups import Structure
from worker.compression.channels.layers import Layer, Window
from worker.compression.channels.recurrence import recurrent_layer
from worker.compression.channels.rules.recurrent import GATES
from worker.compression.channels.site import Use, read_by
from worker.compression.channels.trace import Shape

# Above this many inputs of one output (channels times taps) the Gram is kept by channel only.
_FULL_ROWS = 2304


def consumers(model: ir.Model, structure: Structure) -> list[Layer]:
    """Every layer that sums over prunable channels, in graph order.

    A weight that serves several nodes is left out: one refit cannot fit two places.
    """
    uses: dict[str, list[Use]] = {}
    for use in dict.fromkeys(use for group in structure.groups for use in group.consumers):
        uses.setdefault(use.node, []).append(use)
    order = {node.name: position for position, node in enumerate(model.graph)}
    found = []
    for node in model.graph:
        for use in sorted(uses.get(node.name or "", []), key=lambda one: one.place):
            weight = model.graph.initializers[use.place.value]
            if len(list(weight.uses())) > 1:
                continue
            layer = _layer(node, use, structure, order)
            if layer is not None:
                found.append(layer)
    return found


def followers(model: ir.Model, structure: Structure) -> list[Layer]:
    """Layers behind those that lose inputs: they may make up for what is left of the error.

    Each reads all of its channels still; a weight that serves several nodes is left out.
    """
    using = {use.node for group in structure.groups for use in group.consumers}
    order = {node.name: position for position, node in enumerate(model.graph)}
    reached: set[str] = set()
    found = []
    for node in model.graph:
        behind = any(name in reached for name in read_by(node))
        if behind or node.name in using:
            reached |= {value.name for value in node.outputs if value.name}
        if not behind or node.name in using or not _has_own_matrix(node):
            continue
        layer = _plain_layer(node, _summed_axis(node), structure, order)
        if layer is not None:
            found.append(layer)
    return found


def _has_own_matrix(node: ir.Node) -> bool:
    """Whether the node has a weight that no other one reads, in one group."""
    weight = node.inputs[1] if node.op_type in _OPS else None
    if weight is None or weight.const_value is None:
        return False
    return len(list(weight.uses())) == 1 and node.attributes.get_int("group", 1) == 1


def _summed_axis(node: ir.Node) -> int:
    if node.op_type == "Conv":
        return 1
    return node.attributes.get_int("transB", 0) if node.op_type == "Gemm" else 0


_OPS = ("Conv", "ConvTranspose", "MatMul", "Gemm")


def _layer(
    node: ir.Node, use: Use, structure: Structure, order: dict[str | None, int]
) -> Layer | None:
    if node.op_type in GATES:
        return recurrent_layer(node, use.place.value)
    if node.op_type in _OPS:
        return _plain_layer(node, use.place.axis, structure, order)
    return None


def _plain_layer(
    node: ir.Node, axis: int, structure: Structure, order: dict[str | None, int]
) -> Layer | None:
    x, weight = node.inputs[0], node.inputs[1]
    y = node.outputs[0]
    if x is None or weight is None or weight.const_value is None or x.const_value is not None:
        return None
    if node.op_type == "Gemm" and _unusual_gemm(node):
        return None
    if node.op_type == "MatMul" and len(weight.const_value.shape) != 2:
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
    wide = shape[axis] * math.prod(window.kernel if window else ()) > _FULL_ROWS
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
