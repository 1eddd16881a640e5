"""MatMul as a product of integers with scales that are known: its output is a float.

An output of 8 bits, which QLinearMatMul has, costs a transformer half of its digits: its
residual sums, and what they join, would be rounded with it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from worker.compression.graph import constant
from worker.compression.quantization.insertion import Options
from worker.compression.quantization.scales import Scale, quantize_table
from worker.compression.quantization.steps import Steps


@dataclass(frozen=True)
class _Operand:
    """Integers, their scale and their zero point (None is zero)."""

    values: ir.Value
    scale: ir.Value
    zero: ir.Value | None


def write_integer_products(
    model: ir.Model, chosen: Collection[str], scales: Mapping[str, Scale], options: Options
) -> None:
    """Replace the chosen MatMul nodes of the main graph by MatMulIntegerToFloat, in place.

    `scales` are those of the activations that they read, by name. What is dequantized before a
    MatMul is read as it is.
    """
    steps = Steps(
        model, bits=7 if options.seven_bit_weights else 8, per_channel=options.per_channel
    )
    seen: dict[ir.Value, _Operand] = {}
    for node in list(model.graph):
        if node.name not in chosen or node.op_type != "MatMul":
            continue
        left, right = (
            _held(steps, node, index, options)
            if constant(node.inputs[index]) is not None
            else _activation(steps, node, index, scales, seen)
            for index in range(2)
        )
        made = steps.contrib(
            node,
            "MatMulIntegerToFloat",
            [left.values, right.values, left.scale, right.scale, left.zero, right.zero],
            outputs=1,
        )
        steps.replace(node, made.outputs)
    common.RemoveUnusedNodesPass()(model)


def _held(steps: Steps, node: ir.Node, index: int, options: Options) -> _Operand:
    """A weight on the right, int8; or a constant on the left, of the type of activations."""
    value, tensor = node.inputs[index], constant(node.inputs[index])
    if value is None or tensor is None:
        raise ValueError(f"input {index} of {node.name} is not constant")
    array, name = tensor.numpy(), value.name or ""
    if index == 1:
        axis = 1 if array.ndim == 2 else None
        values, scales = steps.rounded(array, axis)
        return _Operand(
            steps.held(name, "_quantized", values), steps.held(name, "_scale", scales), None
        )
    values, scale = quantize_table(array, options.activation_type)
    return _Operand(
        steps.held(name, "_quantized", values),
        steps.held(name, "_scale", np.asarray(scale.scale)),
        steps.held(name, "_zero_point", np.asarray(scale.zero_point)),
    )


def _activation(
    steps: Steps,
    node: ir.Node,
    index: int,
    scales: Mapping[str, Scale],
    seen: dict[ir.Value, _Operand],
) -> _Operand:
    value = node.inputs[index]
    if value is None:
        raise ValueError(f"{node.name} has no input {index}")
    if value not in seen:
        found = _dequantized(value) or _quantized(value)
        seen[value] = found or _rounded(steps, node, value, scales)
    return seen[value]


def _dequantized(value: ir.Value) -> _Operand | None:
    """What a DequantizeLinear before the node reads."""
    producer = value.producer()
    if producer is None or producer.op_type != "DequantizeLinear" or len(producer.inputs) < 3:
        return None
    values, scale, zero = producer.inputs
    return _whole(values, scale, zero)


def _quantized(value: ir.Value) -> _Operand | None:
    """What an int8 operator beside the node reads."""
    for reader in value.consumers():
        if reader.op_type == "QuantizeLinear" and len(reader.inputs) == 3:
            return _whole(reader.outputs[0], *reader.inputs[1:])
    return None


def _whole(
    values: ir.Value | None, scale: ir.Value | None, zero: ir.Value | None
) -> _Operand | None:
    """The operand, if one scale holds for all of it."""
    held = constant(scale)
    if values is None or scale is None or zero is None or held is None or held.size != 1:
        return None
    return _Operand(values, scale, zero)


def _rounded(
    steps: Steps, node: ir.Node, value: ir.Value, scales: Mapping[str, Scale]
) -> _Operand:
    name = value.name or ""
    scale = steps.held(name, "_scale", np.asarray(scales[name].scale))
    zero = steps.held(name, "_zero_point", np.asarray(scales[name].zero_point))
    made = steps.before(
        node, "QuantizeLinear", [value, scale, zero], name=f"{name}_QuantizeLinear"
    )
    return _Operand(made, scale, zero)
