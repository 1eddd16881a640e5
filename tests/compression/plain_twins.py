"""What layers would suffer in plain int8, written apart from the quantizer: an oracle."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.sensitivity import Twin

# Layers that have fast int8 kernels, and those of their inputs that become int8.
_LAYERS: dict[str, tuple[int, ...]] = {"Conv": (0, 1), "Gemm": (0, 1), "MatMul": (0, 1)}
# Has QuantizeLinear whatever the opset of the model.
_DOMAIN = "com.microsoft"

_Uses = Mapping[tuple[ir.Node, int], tuple[graph.Weight, graph.Use]]
_Ranges = Mapping[str, tuple[float, float]]


@dataclass
class _Inputs:
    """Inputs of a twin under construction, and what makes them."""

    values: list[ir.Value | None] = field(default_factory=list)
    nodes: list[ir.Node] = field(default_factory=list)
    reads: dict[str, ir.Value] = field(default_factory=dict)

    def read(self, value: ir.Value) -> ir.Value:
        name = value.name or ""
        return self.reads.setdefault(name, ir.Value(name=name))


def plain_twins(model: ir.Model, ranges: _Ranges) -> list[Twin]:
    """A twin for each Conv, Gemm and MatMul of the main graph whose inputs have `ranges`.

    Activations become uint8 with one scale, weights int8 with one for each output channel;
    biases stay float. Nodes need names.
    """
    uses = {
        (use.node, use.index): (weight, use)
        for weight in graph.weights(model)
        for use in weight.uses
    }
    made = (
        _twin(node, uses, ranges)
        for node in model.graph
        if node.op_type in _LAYERS and node.domain in ("", "ai.onnx")
    )
    return [twin for twin in made if twin is not None]


def _twin(node: ir.Node, uses: _Uses, ranges: _Ranges) -> Twin | None:
    inputs = _Inputs()
    for index, value in enumerate(node.inputs):
        if value is None or (index not in _LAYERS[node.op_type] and _fixed(value)):
            inputs.values.append(value)
        elif (node, index) in uses:
            inputs.values.append(_weight(*uses[node, index]))
        elif index not in _LAYERS[node.op_type]:
            inputs.values.append(inputs.read(value))
        elif (span := ranges.get(value.name or "")) is not None:
            inputs.values.append(_activation(inputs, value, span))
        else:
            return None
    copy = ir.Node(
        node.domain, node.op_type, inputs.values, list(node.attributes.values()), num_outputs=1
    )
    copy.outputs[0].name = "made"
    return Twin(
        layer=node.name or "",
        nodes=(*inputs.nodes, copy),
        reads=tuple(inputs.reads.values()),
        made=copy.outputs[0],
        target=node.outputs[0].name or "",
        domains={_DOMAIN: 1},
    )


def _fixed(value: ir.Value) -> bool:
    return graph.constant(value) is not None


def _activation(inputs: _Inputs, value: ir.Value, span: tuple[float, float]) -> ir.Value:
    """The tensor rounded to 256 steps over its range, which includes zero."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    scale = (high - low) / 255 or 1.0
    scales = [
        _held(np.array(scale, np.float32)),
        _held(np.array(round(-low / scale), np.uint8)),
    ]
    result = inputs.read(value)
    for op in ("QuantizeLinear", "DequantizeLinear"):
        node = ir.Node(_DOMAIN, op, [result, *scales], num_outputs=1)
        node.outputs[0].name = op
        inputs.nodes.append(node)
        result = node.outputs[0]
    return result


def _weight(weight: graph.Weight, use: graph.Use) -> ir.Value:
    """The weight as its consumer reads it, rounded to int8."""
    array = use.arranged(weight.array())
    axis = _channel_axis(use, array.ndim)
    others = tuple(place for place in range(array.ndim) if place != axis)
    largest = np.abs(array).max(axis=None if axis is None else others, keepdims=True)
    scale = np.where(largest > 0, largest, 1) / 127
    return _held((np.rint(array / scale) * scale).astype(array.dtype))


def _channel_axis(use: graph.Use, rank: int) -> int | None:
    """The axis of output channels, where ONNX Runtime takes a scale for each of them."""
    if use.node.op_type == "Conv":
        return 0
    return (use.reduction_axis + 1) % 2 if rank == 2 and use.index == 1 else None


def _held(array: np.ndarray) -> ir.Value:
    return ir.Value(name="constant", const_value=ir.tensor(array))
