"""Layers that stay float must stay it in ONNX Runtime as well.

At load, its WeightBiasQuantization (core/optimizer/qdq_transformer, seen in 1.32) quantizes the
float weight of each Conv, ConvTranspose and Gemm that reads a DequantizeLinear, with one scale
for all channels. It leaves alone what is dequantized with a scale for each channel.
"""

import numpy as np
import onnx_ir as ir

from worker.compression.graph import constant
from worker.compression.quantization.building import Builder

_REWRITTEN = ("Conv", "ConvTranspose", "Gemm")


def guard_float_layers(model: ir.Model) -> None:
    """Give each float layer behind a DQ a DQ of its own, with the same scale per channel.

    It computes the same numbers: the scale is repeated. Channels are axis 1 of the input.
    """
    builder = Builder(model)
    for node in list(model.graph.all_nodes()):
        dequantizing = _rewritten_behind(node)
        if dequantizing is None or node.graph is not model.graph:
            continue
        channels = _channels(node)
        if channels is not None and channels > 1:
            own = _per_channel(builder, dequantizing, channels)
            model.graph.insert_before(node, own)
            node.replace_input_with(0, own.outputs[0])
            _drop_unread(model, dequantizing)


def _rewritten_behind(node: ir.Node) -> ir.Node | None:
    """The DequantizeLinear before a layer that ONNX Runtime would quantize; None elsewhere."""
    if node.op_type not in _REWRITTEN or node.domain not in ("", "ai.onnx"):
        return None
    weight = constant(node.inputs[1])
    producer = node.inputs[0].producer() if node.inputs[0] is not None else None
    if weight is None or weight.dtype != ir.DataType.FLOAT or producer is None:
        return None
    if producer.op_type != "DequantizeLinear" or len(producer.inputs) < 3:
        return None
    scale = constant(producer.inputs[1])
    return producer if scale is not None and scale.size == 1 else None


def _channels(node: ir.Node) -> int | None:
    """Size of axis 1 of the layer's first input."""
    weight = constant(node.inputs[1])
    if weight is None:
        return None
    shape = weight.shape.numpy()
    if node.op_type == "Conv":
        return int(shape[1]) * node.attributes.get_int("group", 1)
    if node.op_type == "ConvTranspose":
        return int(shape[0])
    if node.attributes.get_int("transA", 0):
        return None  # the rows, whose number is not in the weight
    return int(shape[1] if node.attributes.get_int("transB", 0) else shape[0])


def _per_channel(builder: Builder, dequantizing: ir.Node, channels: int) -> ir.Node:
    quantized, *parameters = dequantizing.inputs
    if quantized is None:
        raise ValueError(f"{dequantizing.name} has no input")
    repeated = []
    for value, end in zip(parameters, ("_scale", "_zero_point"), strict=True):
        tensor = constant(value)
        if value is None or tensor is None:
            raise ValueError(f"{dequantizing.name} has no constant scale")
        array = np.repeat(tensor.numpy().reshape(1), channels)
        repeated.append(builder.initializer(value.name or "", end, array))
    name = f"{dequantizing.name}_float"
    return builder.node("DequantizeLinear", name, [quantized, *repeated], axis=1)


def _drop_unread(model: ir.Model, dequantizing: ir.Node) -> None:
    made = dequantizing.outputs[0]
    if not made.uses() and not made.is_graph_output():
        model.graph.remove(dequantizing, safe=True)
