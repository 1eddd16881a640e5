"""What the graph says of an output: how it was made, and along which axes its channels lie."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from worker.compression.graph import constant

SAME_VALUES = frozenset(
    {"Identity", "Cast", "Dropout", "Reshape", "Squeeze", "Unsqueeze", "Flatten"}
    | {"QuantizeLinear", "DequantizeLinear"}
)
_BOUNDED = frozenset({"Sigmoid", "HardSigmoid", "Softmax", "Tanh"})
_ELEMENTWISE = frozenset(
    {"Identity", "Cast", "Dropout", "Relu", "Clip", "LeakyRelu", "Resize", "Upsample"}
    | {"QuantizeLinear", "DequantizeLinear", "BatchNormalization", "MaxPool"}
    | _BOUNDED
)
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv", "QLinearConv"})


@dataclass(frozen=True)
class Layout:
    """Axes that may hold channels, and whether all values share one bounded scale."""

    axes: tuple[int, ...]
    bounded: bool


def layout(value: ir.Value, rank: int) -> Layout:
    """Axis 1 and the last, unless the output comes from a convolution: then its channels.

    Rows and columns of a picture are places, not channels: an empty margin is no lost signal.
    """
    origin = maker(value, through=SAME_VALUES)
    bounded = origin is not None and origin.op_type in _BOUNDED
    axes = tuple(dict.fromkeys((1, rank - 1))) if rank > 1 else ()
    if rank > 2:
        channel = _channel_axis(value, rank)
        axes = axes if channel is None else (channel,)
    return Layout(axes, bounded)


def maker(value: ir.Value | None, *, through: frozenset[str]) -> ir.Node | None:
    """The node that made a value, seen through operators that only pass it on."""
    for node in chain(value):
        if node.op_type not in through:
            return node
    return None


def chain(value: ir.Value | None) -> Iterator[ir.Node]:
    """Producers along the first input, into the branch of an If."""
    while value is not None:
        node = value.producer()
        if node is None:
            return
        if node.op_type == "If":
            value = node.attributes["then_branch"].as_graph().outputs[value.index() or 0]
            continue
        yield node
        value = next((given for given in node.inputs if constant(given) is None), None)


def affine(node: ir.Node) -> bool:
    """Whether a node adds or multiplies by a constant."""
    return node.op_type in ("Add", "Mul", "Sub", "Div") and any(
        constant(given) is not None for given in node.inputs
    )


def _channel_axis(value: ir.Value, rank: int) -> int | None:
    axis = None
    order = list(range(rank))
    for node in chain(value):
        if node.op_type in _CONVOLUTIONS:
            axis = order.index(1)
            break
        if node.op_type == "Transpose":
            permutation = node.attributes.get_ints("perm", list(range(rank))[::-1])
            if len(permutation) != rank:
                break
            order = [permutation[place] for place in order]
        elif node.op_type not in _ELEMENTWISE and not affine(node):
            break
    return axis
