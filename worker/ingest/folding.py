"""Weights that a graph computes from constants: masked, normalised, or an LSTM's rearranged."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

_WEIGHT_INPUTS = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (0, 1, 2), "MatMul": (0, 1),
    "LSTM": (1, 2, 3), "GRU": (1, 2, 3), "RNN": (1, 2, 3), "Gather": (0,), "PRelu": (1,),
    "LayerNormalization": (1, 2), "BatchNormalization": (1, 2, 3, 4), "Add": (0, 1),
    "Mul": (0, 1),
}  # fmt: skip
_PASSED_THROUGH = {
    "Identity",
    "Transpose",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Cast",
}
# Left to the cleaning: rows of a table, control flow, int8 weights, and what is no weight.
_NEVER_FOLDED = {"Gather", "If", "Loop", "Scan", "QuantizeLinear", "DequantizeLinear",
                 "ConstantOfShape", "RandomNormal", "RandomUniform"}  # fmt: skip
MIN_SIZE = 8  # smaller tensors are alike by chance
_SUFFIXES = {  # what a parametrised weight is computed from -> the weight
    "weight_orig": "weight",
    "bias_orig": "bias",
    "weight_v": "weight",
    "weight_g": "weight",
    "parametrizations.weight.original": "weight",
    "parametrizations.weight.original0": "weight",
    "parametrizations.weight.original1": "weight",
}


def fold_computed_weights(model: ir.Model) -> None:
    """Replace weights that are computed from constants by their values."""
    constant = _constant_nodes(model)
    folded: dict[ir.Value, str] = {}
    for node in list(model.graph.all_nodes()):
        if node.domain or node in constant:
            continue
        for index in _WEIGHT_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            cone = None if value is None else _computed(value, constant)
            if cone is not None:
                made, name = _fold(model, *cone, number=len(folded))
                folded[made] = name
    # What they were computed from goes first: its names are free then.
    RemoveUnusedNodesPass()(model)
    for value, name in folded.items():
        value.name = _free_name(model, name)


def _constant_nodes(model: ir.Model) -> set[ir.Node]:
    """The nodes that depend on no input."""
    constant: set[ir.Node] = set()
    for node in model.graph.all_nodes():
        if node.domain or node.op_type in _NEVER_FOLDED:
            continue
        if all(value is None or _is_constant(value, constant) for value in node.inputs):
            constant.add(node)
    return constant


def _is_constant(value: ir.Value, constant: set[ir.Node]) -> bool:
    producer = value.producer()
    if producer is None:
        return value.is_initializer() and not value.is_graph_input()
    return producer in constant


def _computed(value: ir.Value, constant: set[ir.Node]) -> tuple[ir.Value, list[ir.Node]] | None:
    """The value below any mere rearrangement, with the nodes that compute it from constants."""
    node = value.producer()
    while node in constant and node.op_type in _PASSED_THROUGH and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    if node not in constant or node.op_type == "Constant" or value.is_graph_output():
        return None
    cone = _cone(value)
    return (value, cone) if _leaf_names(cone) else None


def _cone(value: ir.Value) -> list[ir.Node]:
    """All nodes above a constant value, in order."""
    ordered: dict[ir.Node, None] = {}
    pending: list[tuple[ir.Node | None, bool]] = [(value.producer(), False)]
    while pending:
        node, done = pending.pop()
        if node is None or node in ordered:
            continue
        if done:
            ordered[node] = None
            continue
        pending.append((node, True))
        pending += [(item.producer(), False) for item in node.inputs if item is not None]
    return list(ordered)


def _leaves(cone: list[ir.Node]) -> list[ir.Value]:
    """The initializers and constants of a cone, the largest first."""
    found = {
        item: None
        for node in cone
        for item in (*node.inputs, *(node.outputs if node.op_type == "Constant" else ()))
        if item is not None and ir.convenience.get_const_tensor(item) is not None
    }
    return sorted(found, key=lambda item: (-_tensor(item).size, item.name or ""))


def _leaf_names(cone: list[ir.Node]) -> list[str]:
    """Names of the floating-point weights in a cone; without one it is shape arithmetic."""
    return [
        leaf.name
        for leaf in _leaves(cone)
        if leaf.name
        and _tensor(leaf).size >= MIN_SIZE
        and _tensor(leaf).dtype.is_floating_point()
    ]


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:  # not reachable: callers hold constants only
        raise TypeError("no constant")
    return tensor


def _fold(
    model: ir.Model, value: ir.Value, cone: list[ir.Node], *, number: int
) -> tuple[ir.Value, str]:
    """Put an initializer in a value's place; answers it with the name that it should have."""
    array = _evaluate(value, cone)
    leaves = _leaf_names(cone)
    names = [name for name in leaves if not name.endswith("_mask")] or leaves
    folded = ir.val(f"folded__{number}", const_value=ir.tensor(array))
    model.graph.register_initializer(folded)
    value.replace_all_uses_with(folded)
    return folded, _weight_name(names[0])


def _evaluate(value: ir.Value, cone: list[ir.Node]) -> np.ndarray:
    leaves = [leaf for leaf in _leaves(cone) if leaf.is_initializer()]
    copies = {leaf: ir.val(leaf.name or "", const_value=_tensor(leaf)) for leaf in leaves}
    cloner: dict[ir.Value, ir.Value] = dict(copies)
    nodes = []
    for node in cone:
        inputs = [None if item is None else cloner[item] for item in node.inputs]
        copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()),
                       num_outputs=len(node.outputs))  # fmt: skip
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name = old.name
            cloner[old] = new
        nodes.append(copy)
    versions = {"": max(17, _opset(value))}
    graph = ir.Graph([], [cloner[value]], nodes=nodes, initializers=list(copies.values()),
                     opset_imports=versions, name="weights")  # fmt: skip
    proto = ir.to_proto(ir.Model(graph, ir_version=10))
    (array,) = ReferenceEvaluator(proto).run(None, {})
    return np.ascontiguousarray(array)


def _opset(value: ir.Value) -> int:
    producer = value.producer()
    graph = None if producer is None else producer.graph
    return 17 if graph is None else graph.opset_imports.get("", 17)


def _weight_name(name: str) -> str:
    for suffix, weight in _SUFFIXES.items():
        if name == suffix or name.endswith(f".{suffix}"):
            return name.removesuffix(suffix) + weight
    return name


def _free_name(model: ir.Model, name: str) -> str:
    taken = {value.name for value in constants(model)}
    if name not in taken:
        return name
    return next(
        f"{name}.{number}"
        for number in range(1, len(taken) + 2)
        if f"{name}.{number}" not in taken
    )


def constants(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.initializers.values()
    for node in model.graph.all_nodes():
        if node.op_type == "Constant" and node.domain == "":
            yield node.outputs[0]
