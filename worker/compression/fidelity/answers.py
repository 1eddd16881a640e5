"""Whether an output holds a score for each class, along its last axis."""

import re
from collections.abc import Iterator

import onnx_ir as ir

from worker.compression.fidelity.layout import SAME_VALUES, affine, chain, maker
from worker.compression.fidelity.measures import OutputKind
from worker.compression.graph import constant

VECTOR = 16
"""Fewest entries of an embedding."""
_SOFTMAX = ("Softmax", "LogSoftmax", "Hardmax")
_PRODUCTS = (
    "Gemm",
    "MatMul",
    "QGemm",
    "QLinearMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "FusedMatMul",
)
_CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv")
_POOLS = ("GlobalAveragePool", "GlobalMaxPool", "QLinearGlobalAveragePool", "ReduceMean")
_ACTIVATIONS = frozenset(
    {"Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Mul", "Add", "Div"}
    | {"BatchNormalization", "LeakyRelu", "PRelu", "Elu"}
)
# Nothing between the last pool and the classes is longer.
_HEAD = 16
# How a sum is brought back to the shape that it divides.
_SPREAD = SAME_VALUES | {"Expand", "Tile"}
# The order of classes stays the same behind these.
_MONOTONE = SAME_VALUES | {"Log", "Clip"}
# What a product makes is no class where the output is called so: the graph looks the same.
_VALUES = {
    *("box", "boxes", "bbox", "bboxes", "coord", "coords", "coordinates", "loc", "locs"),
    *("landmark", "landmarks", "keypoint", "keypoints", "kpts", "offset", "offsets", "pose"),
    *("regression", "regressor", "depth", "flow", "angle", "angles", "delta", "deltas"),
}
_EMBEDDINGS = {
    *("embed", "embeds", "embedding", "embeddings", "feature", "features", "descriptor"),
    *("descriptors", "projection"),
}


def named(name: str, last: int | str | None) -> OutputKind | None:
    """What an output is called, where that says that it holds no classes."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    if words & _VALUES:
        return "value"
    vector = not isinstance(last, int) or last >= VECTOR
    return "embedding" if vector and words & _EMBEDDINGS else None


def is_softmaxed(value: ir.Value, rank: int | None) -> bool:
    """Whether a softmax over what is the output's last axis made it, or its logarithm."""
    for node, axis in _trail(value):
        if node.op_type in _SOFTMAX:
            return _axis(node, rank) == axis
        if node.op_type in ("Div", "Sub") and is_written_softmax(node):
            return True
        if node.op_type not in _MONOTONE and node.op_type not in _MOVES:
            return False
    return False


def is_product(value: ir.Value, rank: int | None) -> bool:
    """Whether a matrix product along the last axis made it, or a Conv behind the last pool."""
    for node, axis in _trail(value):
        if node.op_type in _PRODUCTS:
            return axis == -1
        if node.op_type in _CONVOLUTIONS:
            return rank == 2 and _behind_a_pool(node)
        known = node.op_type in SAME_VALUES or node.op_type in _MOVES or affine(node)
        if not known:
            return False
    return False


_MOVES = ("Transpose", "Gather", "Slice")


def _trail(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Producers, each with the axis of its output, from the end, that is the value's last.

    Ends where that axis is cut, or cannot be followed.
    """
    axis = -1
    for node in chain(value):
        yield node, axis
        moved = _before(node, axis)
        if moved is None:
            return
        axis = moved


def _before(node: ir.Node, axis: int) -> int | None:
    """The axis of a node's input that became `axis`, both from the end."""
    if node.op_type == "Transpose":
        order = node.attributes.get_ints("perm", [])
        return order[axis] - len(order) if order else None
    if node.op_type == "Gather":
        rank, cut = _gathered_rank(node), node.attributes.get_int("axis", 0)
        return None if rank is None or axis != -1 or cut in (-1, rank - 1) else axis
    return axis


def _gathered_rank(node: ir.Node) -> int | None:
    """How many axes a Gather takes from, as declared there or behind it."""
    data, chosen = node.inputs[0], constant(node.inputs[1])
    if data is not None and data.shape is not None:
        return len(data.shape)
    made = node.outputs[0].shape
    return None if made is None or chosen is None else len(made) + 1 - len(chosen.shape)


def _axis(node: ir.Node, rank: int | None) -> int:
    """The axis of a softmax, from the end."""
    axis = node.attributes.get_int("axis", -1)
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    return axis if axis < 0 else axis - (len(shape) if shape is not None else (rank or 2))


def is_written_softmax(node: ir.Node) -> bool:
    """A softmax written out: exp(x) / sum(exp(x)), or its logarithm, x - log(sum(exp(x)))."""
    if node.op_type == "Sub":
        below = maker(node.inputs[1], through=_SPREAD)
        return below is not None and below.op_type == "ReduceLogSumExp"
    above, below = (maker(given, through=_SPREAD) for given in node.inputs)
    if above is None or below is None or below.op_type != "ReduceSum":
        return False
    return above.op_type == "Exp" and maker(below.inputs[0], through=_SPREAD) is above


def _behind_a_pool(node: ir.Node) -> bool:
    """Whether a Conv reads one place only, as a matrix product does."""
    for place, before in enumerate(chain(node.inputs[0])):
        if before.op_type in _POOLS:
            return True
        known = before.op_type in _CONVOLUTIONS or before.op_type in SAME_VALUES
        if place > _HEAD or not (known or before.op_type in _ACTIVATIONS):
            return False
    return False
