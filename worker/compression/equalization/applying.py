"""Factors brought into a graph."""

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.equalization.groups import Constant, Group


def scale(model: ir.Model, group: Group, factors: np.ndarray) -> None:
    """Multiply what makes the tensors of a group, divide what reads them.

    A tensor that nothing makes scaled gets a Mul, which only the readers see.
    """
    if not group.makers:
        _insert(model, group, factors)
    for one in group.makers:
        _replace(model, one, group.multiplied(one, factors))
    for one in group.readers:
        _replace(model, one, group.divided(one, factors))


def _replace(model: ir.Model, one: Constant, array: np.ndarray) -> None:
    old = one.node.inputs[one.index]
    if old is None:
        raise ValueError(f"{one.node.name} has no input {one.index}")
    name = old.name or ""
    tensor = ir.tensor(np.ascontiguousarray(array, np.float32), name=name)
    if old.is_initializer():
        old.const_value = tensor
        return
    value = _initializer(model, f"{name}_scaled", tensor.numpy())
    one.node.replace_input_with(one.index, value)


def _insert(model: ir.Model, group: Group, factors: np.ndarray) -> None:
    value = group.values[0]
    held = _initializer(model, f"{value.name}_factors", factors.astype(np.float32))
    mul = ir.node("Mul", [value, held], name=f"{value.name}_smoothed", num_outputs=1)
    made = mul.outputs[0]
    made.name = graph.free_name(model.graph, f"{value.name}_smoothed")
    made.type, made.shape = value.type, value.shape
    model.graph.insert_before(group.readers[0].node, mul)
    for one in group.readers:
        one.node.replace_input_with(0, made)


def _initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    name = graph.free_name(model.graph, name)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    model.graph.register_initializer(value)
    return value
