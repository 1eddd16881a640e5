"""The graph that quantization needs: plain float32 initializers, one role each, opset 13."""

import hashlib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from worker.compression import graph
from worker.compression.cleaning import constants_lifted, opset_raised
from worker.compression.errors import PassFailed
from worker.compression.quantization.halves import widen

_OLDEST_OPSET = 13
# The inputs of an operator that hold the data to quantize.
_DATA_INPUTS = {"Conv": (1,), "Gemm": (1,), "MatMul": (0, 1), "Gather": (0,)}
# What onnxruntime's quantizer appends to a tensor's name; it takes over a tensor that has the
# name already, with whatever that tensor holds.
_SUFFIXES = (
    "_scale", "_zero_point", "_quantized", "_quantized_scale", "_quantized_zero_point",
    "_QuantizeLinear_Output", "_QuantizeLinear_Input", "_DequantizeLinear_Output",
)  # fmt: skip


def prepare(model: ir.Model) -> ir.Model:
    """Bring a model, which may not have been cleaned, into the form that quantization needs.

    Raises:
        PassFailed: its operator set is too old and cannot be raised.
    """
    model = constants_lifted(model)
    if graph.opset(model) < _OLDEST_OPSET:
        model = _raised(model)
    graph.name_nodes(model)
    widen(model)
    _fold_weights(model)
    _part_roles(model)
    _free_names(model)
    return common.RemoveUnusedNodesPass()(model).model


def _raised(model: ir.Model) -> ir.Model:
    before = graph.opset(model)
    try:
        return constants_lifted(opset_raised(model))
    except Exception as error:
        raise PassFailed(
            f"the model's operator set {before} cannot be raised to {_OLDEST_OPSET}, which "
            f"int8 needs: {str(error)[:200]}",
            hint=f"export the model again with opset {_OLDEST_OPSET} or above",
        ) from error


def _fold_weights(model: ir.Model) -> None:
    """Compute Transpose, Reshape and Cast of weights once, so that each is an initializer."""
    made: dict[tuple[ir.Value, bytes], ir.Value] = {}
    for node in list(model.graph):
        for index in _DATA_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            source = graph.source_of(value)
            if source is None or not source[1] or node.domain:
                continue
            array = _computed(source[0], source[1])
            digest = hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).digest()
            key = source[0], digest
            if key not in made:
                name = f"{source[0].name}_folded_{len(made)}"
                made[key] = _initializer(model, name, array)
            node.replace_input_with(index, made[key])


def _part_roles(model: ir.Model) -> None:
    """Give every role of a shared initializer a copy of its own: scales differ by role."""
    copies: dict[tuple[ir.Value, str], ir.Value] = {}
    first: dict[ir.Value, str] = {}
    for node in list(model.graph):
        for index in _DATA_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            tensor = None if value is None else value.const_value
            if value is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
                continue
            role = f"{node.op_type}{index}{node.attributes.get_int('transB', 0)}"
            others = any(use.node.op_type not in _DATA_INPUTS for use in value.uses())
            if first.setdefault(value, role) == role and not others:
                continue
            if (value, role) not in copies:
                name = f"{value.name}_for_{role}"
                copies[value, role] = _initializer(model, name, tensor.numpy())
            node.replace_input_with(index, copies[value, role])


def _free_names(model: ir.Model) -> None:
    """Rename tensors whose names the quantizer would take for its own."""
    held = [value for part in model.graphs() for value in part.initializers.values()]
    made = [value for node in model.graph.all_nodes() for value in node.outputs]
    names = {value.name for value in (*held, *made, *model.graph.inputs)}
    interface = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    for value in (*held, *made):
        name = value.name or ""
        base = next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), None)
        if base in names and name not in interface:
            value.name = f"{name}_of_the_model"


def _computed(source: ir.Value, path: Sequence[ir.Node]) -> np.ndarray:
    tensor = graph.constant(source)
    if tensor is None:
        raise ValueError(f"{source.name} is not constant")
    use = graph.Use(path[-1], 0, tuple(path))
    casts = [step.attributes.get_int("to", 1) for step in path if step.op_type == "Cast"]
    array = use.arranged(tensor.numpy())
    return np.ascontiguousarray(
        array.astype(ir.DataType(casts[-1]).numpy()) if casts else array
    )


def _initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    model.graph.register_initializer(value)
    return value
