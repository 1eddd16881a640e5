"""The steps of cleaning, each from model to model. A step that cannot be done says why."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxslim
from onnx_ir.passes import common

from worker.compression import graph
from worker.compression.cleaning.folding import fold_batch_norm

OPSET = 17
# A constant above this is not written out, though it could be computed from smaller ones.
_FOLDED_BYTES = 64_000_000
_BODY = ir.AttributeType.GRAPH
_MAKE_SEQUENCES = {
    "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase", "SequenceMap",
    "SplitToSequence", "Optional",
}  # fmt: skip
_PASS_SEQUENCES = {"Identity", "OptionalGetElement", "If", "Loop", "Scan"}


class Skipped(Exception):
    """A step that does not apply to this model."""


def opset_raised(model: ir.Model) -> ir.Model:
    """The operator set raised to 17 or above."""
    if graph.opset(model) >= OPSET:
        return model
    proto = _small_proto(model)
    return ir.from_proto(onnx.version_converter.convert_version(proto, OPSET))


def constants_lifted(model: ir.Model) -> ir.Model:
    """Functions inlined, Constant nodes turned into initializers that no caller can replace."""
    for step in (
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        common.RemoveUnusedNodesPass(),
    ):
        model = step(model).model
    return graph.renewed(model)


def redundancy_removed(model: ir.Model) -> ir.Model:
    """Constants folded, BatchNorm folded, nodes without effect removed, by onnxslim."""
    proto = onnxslim.slim(_small_proto(model), size_threshold=_FOLDED_BYTES)
    slimmed: ir.Model = ir.from_proto(proto)
    return slimmed


def batch_norm_folded(model: ir.Model) -> ir.Model:
    """BatchNorm folded into Conv, ConvTranspose and Gemm."""
    fold_batch_norm(model)
    return common.RemoveUnusedNodesPass()(model).model


def shapes_inferred(model: ir.Model) -> ir.Model:
    """Types and shapes of every tensor, as far as they follow from the operators."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    model = common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(
        model
    ).model
    # The pass writes down what a sequence is made of as if it were a tensor.
    for value in _sequences(model):
        if not value.is_graph_output():
            value.type, value.shape = None, None
    return model


def _sequences(model: ir.Model) -> set[ir.Value]:
    """Sequences and optionals that nodes make, and all that may be one by passing it on."""
    found: set[ir.Value] = set()
    before = -1
    while before != len(found):  # bodies come behind the nodes that hold them
        before = len(found)
        for node in model.graph.all_nodes():
            bodies = [one.value for one in node.attributes.values() if one.type == _BODY]
            read = [*node.inputs, *(value for body in bodies for value in body.outputs)]
            passes = node.op_type in _PASS_SEQUENCES and not found.isdisjoint(read)
            if node.op_type in _MAKE_SEQUENCES or passes:
                found.update(node.outputs)
    return found


def interface_restored(
    model: ir.Model, like: ir.Model, actual: Sequence[np.ndarray] = ()
) -> ir.Model:
    """Declared types and shapes as in the upload, but for sizes that a run has proved wrong."""
    for ours, theirs in zip(model.graph.inputs, like.graph.inputs, strict=False):
        ours.shape, ours.type = theirs.shape, theirs.type
    for position, theirs in enumerate(like.graph.outputs):
        ours = model.graph.outputs[position]
        ours.type = theirs.type
        ours.shape = theirs.shape
        if position < len(actual) and theirs.shape is not None:
            ours.shape = _true_shape(theirs.shape, actual[position].shape)
    return model


def names_restored(model: ir.Model, like: ir.Model) -> ir.Model:
    """Layers named as in the upload: onnxslim names a layer that it merged after its output."""
    taken = {node.name for node in model.graph.all_nodes()}
    known = {weight.name: weight.nodes[0] for weight in graph.weights(like)}
    for weight in graph.weights(model):
        node, old = weight.nodes[0], known.get(weight.name)
        if old is not None and old.op_type == node.op_type and old.name not in taken:
            node.name = old.name
            taken.add(old.name)
    return model


def _true_shape(declared: ir.Shape, actual: tuple[int, ...]) -> ir.Shape:
    if len(declared) != len(actual):
        return ir.Shape([None] * len(actual))
    return ir.Shape(
        [
            None if isinstance(axis, int) and axis != size else axis
            for axis, size in zip(declared, actual, strict=True)
        ]
    )


def _small_proto(model: ir.Model) -> onnx.ModelProto:
    """The whole model as one message.

    Raises:
        Skipped: it is too large for one.
    """
    if graph.weight_bytes(model) > graph.SINGLE_FILE_BYTES:
        raise Skipped("the model is larger than 1.5 GB")
    return graph.to_proto(model)
