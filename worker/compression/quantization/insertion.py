"""Q and DQ around the chosen nodes of a prepared model, placed as ONNX Runtime fuses them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import onnx_ir as ir

from worker.compression.graph import constant
from worker.compression.quantization.building import Builder
from worker.compression.quantization.guarding import guard_float_layers
from worker.compression.quantization.operators import (
    BIAS_INPUTS,
    FLOAT_OUTPUT,
    SAME_SCALE,
    absorbed,
    data_inputs,
)
from worker.compression.quantization.scales import (
    QuantizedWeight,
    Scale,
    activation_scale,
    quantize_bias,
    quantize_table,
    quantize_weight,
    wide_enough,
)

Format = Literal["qdq", "qoperator"]
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Options:
    """How numbers are written."""

    format: Format = "qdq"
    signed_activations: bool = False
    seven_bit_weights: bool = False
    per_channel: bool = True
    float_outputs: Collection[str] = FLOAT_OUTPUT

    @property
    def activation_type(self) -> np.dtype:
        return np.dtype(np.int8 if self.signed_activations else np.uint8)


def insert(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    ranges: Ranges,
    options: Options,
    *,
    weights: Mapping[str, QuantizedWeight] = {},
) -> ir.Model:
    """Quantize the chosen nodes of a prepared model, which is changed and returned.

    `weights` holds, by name of the initializer, weights that were rounded elsewhere; the others
    are rounded to nearest. Names are those that onnxruntime.quantization gives.
    """
    clipped = _absorb(model, nodes)
    left = [node for node in nodes if node.graph is not None]
    inserter = _Inserter(model, left, clipped, ranges, options)
    inserter.write_weights(weights)
    inserter.write_activations()
    guard_float_layers(model)
    for node in model.graph.all_nodes():
        for value in node.outputs:
            # Inferred shapes may be wrong where declared ones were, and are inferred anew.
            if not value.is_graph_output():
                value.shape, value.type = None, None
    return model


def weight_axis(node: ir.Node, index: int) -> int | None:
    """The axis along which the weight at input `index` may have a scale for each channel."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    tensor = constant(node.inputs[index])
    return 1 if index == 1 and tensor is not None and len(tensor.shape) == 2 else None


def _absorb(model: ir.Model, nodes: Sequence[ir.Node]) -> set[ir.Value]:
    """Remove each Relu and Clip that the range of its output stands for; gives what is left."""
    clipped = set()
    for node in absorbed(nodes):
        before, after = node.inputs[0], node.outputs[0]
        if before is None:  # not reachable: an absorbed node has an input
            continue
        name = after.name
        after.replace_all_uses_with(before, replace_graph_outputs=True)
        model.graph.remove(node, safe=True)
        before.name, before.type, before.shape = name, after.type, after.shape
        clipped.add(before)
    return clipped


@dataclass(frozen=True)
class _Written:
    """A scale and its initializers."""

    scale: Scale
    inputs: tuple[ir.Value, ir.Value]


@dataclass
class _Inserter:
    model: ir.Model
    nodes: Sequence[ir.Node]
    # Tensors that had a Relu or Clip of their own: their scale is never that of another.
    clipped: set[ir.Value]
    ranges: Ranges
    options: Options
    chosen: set[ir.Node] = field(init=False)
    builder: Builder = field(init=False)
    activations: dict[ir.Value, _Written] = field(default_factory=dict)
    tables: dict[ir.Value, _Written] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chosen = set(self.nodes)
        self.builder = Builder(self.model)

    def write_weights(self, ready: Mapping[str, QuantizedWeight]) -> None:
        for value, uses in self._constant_uses().items():
            node = uses[0][0]
            if node.op_type in BIAS_INPUTS or node.op_type == "MatMul":
                self._write_weight(value, uses, ready.get(value.name or ""))
            else:
                self._write_table(value, uses)
            self._drop_unused(value)

    def _constant_uses(self) -> dict[ir.Value, list[tuple[ir.Node, int]]]:
        uses: dict[ir.Value, list[tuple[ir.Node, int]]] = {}
        for node in self.nodes:
            for index in data_inputs(node):
                value = node.inputs[index]
                if value is not None and constant(value) is not None:
                    uses.setdefault(value, []).append((node, index))
        return uses

    def _write_weight(
        self,
        value: ir.Value,
        uses: Sequence[tuple[ir.Node, int]],
        weight: QuantizedWeight | None,
    ) -> None:
        name = value.name or ""
        if weight is None:
            axis = weight_axis(*uses[0]) if self.options.per_channel else None
            bits = 7 if self.options.seven_bit_weights else 8
            weight = quantize_weight(_array(value), axis=axis, bits=bits)
        for node, _ in uses:
            bias = self._bias(node)
            if bias is not None:
                weight = wide_enough(weight, _array(bias).ravel(), self._input_scale(node))
        zero = np.zeros_like(weight.scale, np.int8)
        dequantized = self.builder.dequantized(
            uses[0][0], name, weight.values, (weight.scale, zero), weight.axis
        )
        for node, index in uses:
            node.replace_input_with(index, dequantized)
            self._write_bias(node, weight)

    def _write_bias(self, node: ir.Node, weight: QuantizedWeight) -> None:
        bias = self._bias(node)
        if bias is None:
            return
        values, scale = quantize_bias(_array(bias).ravel(), weight, self._input_scale(node))
        axis = None if weight.axis is None else 0
        dequantized = self.builder.dequantized(
            node, bias.name or "", values, [scale], axis, suffix="_quantized"
        )
        node.replace_input_with(BIAS_INPUTS[node.op_type], dequantized)
        self._drop_unused(bias)

    def _write_table(self, value: ir.Value, uses: Sequence[tuple[ir.Node, int]]) -> None:
        """A constant that int8 operators read as an activation: its type is theirs."""
        values, scale = quantize_table(_array(value), self.options.activation_type)
        dequantized = self.builder.dequantized(
            uses[0][0], value.name or "", values, (scale.scale, scale.zero_point), None
        )
        producer = dequantized.producer()
        if producer is None or producer.inputs[1] is None or producer.inputs[2] is None:
            raise ValueError(f"{value.name} has no scale")
        written = _Written(scale, (producer.inputs[1], producer.inputs[2]))
        for node, index in uses:
            node.replace_input_with(index, dequantized)
        self.tables[dequantized] = written

    def _bias(self, node: ir.Node) -> ir.Value | None:
        index = BIAS_INPUTS.get(node.op_type)
        return node.inputs[index] if index is not None and index < len(node.inputs) else None

    def _drop_unused(self, value: ir.Value) -> None:
        name = value.name or ""
        if not value.uses() and not value.is_graph_output():
            self.model.graph.initializers.pop(name, None)

    def write_activations(self) -> None:
        for value in list(self._quantized_values()):
            self._written(value)
        for value, written in self.activations.items():
            self._wrap(value, written)

    def _quantized_values(self) -> Iterator[ir.Value]:
        for node in self.nodes:
            for index in data_inputs(node):
                value = node.inputs[index]
                if value is not None and not self._is_dequantized_constant(value):
                    yield value
            if self._makes_int8(node):
                yield from node.outputs

    def _wrap(self, value: ir.Value, written: _Written) -> None:
        """Put Q and DQ behind a tensor.

        Where an int8 kernel makes it, nobody may read it but Q. Otherwise only int8 nodes read
        what Q has rounded, which spares the others the error.
        """
        producer = value.producer()
        alone = producer is not None and producer in self.chosen and self._makes_int8(producer)
        uses = [
            use
            for use in value.uses()
            if alone or (use.node in self.chosen and use.idx in data_inputs(use.node))
        ]
        name = value.name or ""
        q = self.builder.node("QuantizeLinear", name, [value, *written.inputs])
        dq = self.builder.node("DequantizeLinear", name, [q.outputs[0], *written.inputs])
        if producer is None:
            self.model.graph.insert_before(self.model.graph[0], [q, dq])
        else:
            self.model.graph.insert_after(producer, [q, dq])
        for use in uses:
            use.node.replace_input_with(use.idx, dq.outputs[0])
        if alone and value.is_graph_output():
            self._give_output(value, dq.outputs[0])

    def _give_output(self, value: ir.Value, dequantized: ir.Value) -> None:
        """Let the graph give the dequantized tensor, under the name that its user knows."""
        name = value.name or ""
        value.name = self.builder.free(f"{name}_QuantizeLinear_Input")
        dequantized.name = name
        dequantized.type, dequantized.shape = value.type, value.shape
        for position, output in enumerate(self.model.graph.outputs):
            if output is value:
                self.model.graph.outputs[position] = dequantized

    def _written(self, value: ir.Value) -> _Written:
        """The scale of a tensor: that of the one it is moved from, or one of its own."""
        if value in self.tables:
            return self.tables[value]
        if value in self.activations:
            return self.activations[value]
        producer = value.producer()
        source = None if producer is None or producer not in self.chosen else producer.inputs[0]
        moved = producer is not None and producer.op_type in SAME_SCALE
        if source is not None and moved and value not in self.clipped:
            self.activations[value] = self._written(source)
        else:
            self.activations[value] = self._own_scale(value)
        return self.activations[value]

    def _own_scale(self, value: ir.Value) -> _Written:
        name = value.name or ""
        scale = activation_scale(*self.ranges[name], self.options.activation_type)
        inputs = (
            self.builder.initializer(name, "_scale", scale.scale),
            self.builder.initializer(name, "_zero_point", scale.zero_point),
        )
        return _Written(scale, inputs)

    def _input_scale(self, node: ir.Node) -> np.float32:
        value = node.inputs[0]
        if value is None:
            raise ValueError(f"{node.name} has no input")
        return self._written(value).scale.scale

    def _is_dequantized_constant(self, value: ir.Value) -> bool:
        producer = value.producer()
        return (
            producer is not None
            and producer.op_type == "DequantizeLinear"
            and constant(producer.inputs[0]) is not None
        )

    def _makes_int8(self, node: ir.Node) -> bool:
        return node.op_type not in self.options.float_outputs


def _array(value: ir.Value) -> np.ndarray:
    tensor = constant(value)
    if tensor is None:
        raise ValueError(f"{value.name} is not constant")
    return tensor.numpy()
