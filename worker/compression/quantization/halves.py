"""float16 graphs computed in float32: ONNX Runtime has no int8 kernels beside half floats."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

_HALF, _FLOAT = ir.DataType.FLOAT16, ir.DataType.FLOAT
# Attributes that name a type.
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype")


def widen(model: ir.Model) -> bool:
    """Turn half floats into floats everywhere but at the interface; True if there were any.

    A model that keeps its weights as half floats and casts them before use is left as it is.
    """
    if not computes_in_half(model):
        return False
    narrow = [value for value in model.graph.outputs if value.dtype == _HALF]
    for part in model.graphs():
        for value in part.initializers.values():
            tensor = value.const_value
            if tensor is not None and tensor.dtype == _HALF:
                wide = tensor.numpy().astype(np.float32)
                value.const_value = ir.tensor(wide, name=value.name)
                value.dtype = _FLOAT
        if part is not model.graph:
            _widen_values(part.inputs)
    for node in model.graph.all_nodes():
        _widen_attributes(node)
        _widen_values(node.outputs)
    _cast_inputs(model)
    _cast_outputs(model, narrow)
    return True


def _widen_values(values: Sequence[ir.Value]) -> None:
    for value in values:
        if value.dtype == _HALF:
            value.dtype = _FLOAT


def computes_in_half(model: ir.Model) -> bool:
    """Whether a layer multiplies by half floats."""
    layers = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU")
    return any(
        value is not None and value.const_value is not None and value.const_value.dtype == _HALF
        for node in model.graph.all_nodes()
        if node.op_type in layers
        for value in node.inputs
    )


def _widen_attributes(node: ir.Node) -> None:
    for name in _TYPE_ATTRIBUTES:
        if node.attributes.get_int(name, 0) == _HALF:
            node.attributes[name] = ir.AttrInt64(name, int(_FLOAT))
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype == _HALF:
            wide = ir.tensor(attribute.value.numpy().astype(np.float32))
            node.attributes[name] = ir.AttrTensor(name, wide)


def _cast_inputs(model: ir.Model) -> None:
    for value in model.graph.inputs:
        if value.dtype != _HALF:
            continue
        cast = ir.node("Cast", [value], {"to": int(_FLOAT)}, name=f"{value.name}_widened")
        cast.outputs[0].name = f"{value.name}_widened"
        cast.outputs[0].dtype = _FLOAT
        value.replace_all_uses_with(cast.outputs[0])
        cast.replace_input_with(0, value)
        model.graph.insert_before(model.graph[0], cast)


def _cast_outputs(model: ir.Model, narrow: Sequence[ir.Value]) -> None:
    for position, value in enumerate(model.graph.outputs):
        if value not in narrow:
            continue
        name = value.name
        cast = ir.node("Cast", [value], {"to": int(_HALF)}, name=f"{name}_narrowed")
        value.name = f"{name}_wide"
        made = cast.outputs[0]
        made.name, made.shape, made.dtype = name, value.shape, _HALF
        model.graph.append(cast)
        model.graph.outputs[position] = made
