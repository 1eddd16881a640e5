"""Give a converted model's weights the names that they have in the module.

The exporter leaves the names of the wrapper, loses those of LSTM weights and of lists, and
computes masked and normalised weights in the graph. Here each weight becomes one initializer
under its module path, so that patterns find it and pruning sees the zeros of a mask.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from worker.ingest.module import INNER

_WEIGHT_INPUTS = {
    "Conv": (1, 2), "ConvTranspose": (1, 2), "Gemm": (0, 1, 2), "MatMul": (0, 1),
    "LSTM": (1, 2, 3), "GRU": (1, 2, 3), "RNN": (1, 2, 3), "Gather": (0,), "PRelu": (1,),
    "LayerNormalization": (1, 2), "BatchNormalization": (1, 2, 3, 4), "Add": (0, 1), "Mul": (0, 1),
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
_MIN_SIZE = 8  # smaller tensors are alike by chance
_SUFFIXES = {  # what a parametrised weight is computed from -> the weight
    "weight_orig": "weight",
    "bias_orig": "bias",
    "weight_v": "weight",
    "weight_g": "weight",
    "parametrizations.weight.original": "weight",
    "parametrizations.weight.original0": "weight",
    "parametrizations.weight.original1": "weight",
}


def restore(model: ir.Model, state: Mapping[str, np.ndarray]) -> None:
    """Rename and fold in place; `state` is the module's state dict."""
    _unwrap(model)
    _name_by_content(model, state)
    _fold_computed(model)


def state_of(module: Any) -> dict[str, np.ndarray]:  # noqa: ANN401 - a ScriptModule
    """The state dict as arrays, and the weight that each mask of torch.nn.utils.prune leaves."""
    import torch  # noqa: PLC0415 - the web process never loads torch

    plain = (torch.float16, torch.float32, torch.float64)
    arrays = {
        name: tensor.detach().numpy()
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, torch.Tensor) and tensor.dtype in plain
    }
    masked = {
        name.removesuffix("_orig"): array * arrays[f"{name.removesuffix('_orig')}_mask"]
        for name, array in arrays.items()
        if name.endswith("_orig") and f"{name.removesuffix('_orig')}_mask" in arrays
    }
    return {**arrays, **masked}


def _unwrap(model: ir.Model) -> None:
    """Take the wrapper's own name out of all names."""
    for graph in model.graphs():
        for value in list(graph.initializers.values()):
            if value.name and value.name.startswith(f"{INNER}."):
                value.name = value.name.removeprefix(f"{INNER}.")
    for node in model.graph.all_nodes():
        node.name = _without_scope(node.name)
        for output in node.outputs:
            output.name = _without_scope(output.name)


def _without_scope(name: str | None) -> str | None:
    return name.replace(f"/{INNER}/", "/", 1) if name else name


def _name_by_content(model: ir.Model, state: Mapping[str, np.ndarray]) -> None:
    taken = {value.name for value in _constants(model)}
    known: dict[str, list[str]] = {}
    for name, array in state.items():
        if name not in taken and _is_telling(array):
            known.setdefault(_digest(array), []).append(name)
    for value in list(_constants(model)):
        tensor = ir.convenience.get_const_tensor(value)
        if value.name in state or tensor is None or tensor.size < _MIN_SIZE:
            continue
        names = known.get(_digest(tensor.numpy()))
        if names and not value.is_graph_output():
            value.name = names.pop(0)


def _constants(model: ir.Model) -> Iterator[ir.Value]:
    for graph in model.graphs():
        yield from graph.initializers.values()
    for node in model.graph.all_nodes():
        if node.op_type == "Constant" and node.domain == "":
            yield node.outputs[0]


def _is_telling(array: np.ndarray) -> bool:
    return (
        array.size >= _MIN_SIZE
        and array.dtype.kind == "f"
        and bool((array != array.flat[0]).any())
    )


def _digest(array: np.ndarray) -> str:
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes())
    return f"{array.dtype}{array.shape}{content.hexdigest()}"


def _fold_computed(model: ir.Model) -> None:
    """Replace weights that are computed from constants by their values."""
    folded: dict[ir.Value, str] = {}
    for node in list(model.graph.all_nodes()):
        if node.domain:
            continue
        for index in _WEIGHT_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            cone = None if value is None else _computed(value)
            if cone is not None:
                made, name = _fold(model, *cone, number=len(folded))
                folded[made] = name
    # What they were computed from goes first: its names are free then.
    RemoveUnusedNodesPass()(model)
    for value, name in folded.items():
        value.name = _free_name(model, name)


def _computed(value: ir.Value) -> tuple[ir.Value, list[ir.Node]] | None:
    """The value below any mere rearrangement, with the nodes that compute it from constants."""
    node = value.producer()
    while node is not None and node.op_type in _PASSED_THROUGH and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    if node is None or node.op_type == "Constant" or value.is_graph_output():
        return None
    cone = _cone(value)
    return None if cone is None or not any(_leaf_names(cone)) else (value, cone)


def _cone(value: ir.Value) -> list[ir.Node] | None:
    """All nodes above a value in order, or None where it depends on an input."""
    ordered: dict[ir.Node, None] = {}
    pending: list[tuple[ir.Value, bool]] = [(value, False)]
    while pending:
        current, done = pending.pop()
        node = current.producer()
        if node is None:
            if not current.is_initializer() or current.is_graph_input():
                return None
        elif done:
            ordered[node] = None
        elif node not in ordered:
            if (
                node.op_type in _NEVER_FOLDED
                or node.domain
                or node.graph is not value.producer().graph
            ):
                return None
            pending.append((current, True))
            pending += [(item, False) for item in node.inputs if item is not None]
    return list(ordered)


def _leaves(cone: list[ir.Node]) -> list[ir.Value]:
    """The initializers and constants of a cone, the largest first."""
    found = {
        item: None
        for node in cone
        for item in (*node.inputs, *(node.outputs if node.op_type == "Constant" else ()))
        if item is not None and ir.convenience.get_const_tensor(item) is not None
    }
    return sorted(found, key=lambda item: -(_tensor(item).size))


def _leaf_names(cone: list[ir.Node]) -> list[str]:
    """Names of the floating-point weights in a cone; without one it is shape arithmetic."""
    return [
        leaf.name
        for leaf in _leaves(cone)
        if leaf.name
        and _tensor(leaf).size >= _MIN_SIZE
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
    taken = {value.name for value in _constants(model)}
    if name not in taken:
        return name
    return next(
        f"{name}.{number}"
        for number in range(1, len(taken) + 2)
        if f"{name}.{number}" not in taken
    )
