"""A twin cut out of a result: what it computes between tensors that the original has too."""

from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.sensitivity.twins import Limits, Twin

# What quantizers put around one layer is short; more is not this layer alone.
_MOST_NODES = 24
_MOST_STEPS = 6
_QUANTIZED = "_quantized"
# Operators that read and make int8: where scale and zero point of inputs and output are.
_INT8_INPUTS = {"QLinearConv": (0,), "QLinearMatMul": (0, 3), "QGemm": (0,)}
_INT8_OUTPUT = {"QLinearConv": 6, "QLinearMatMul": 6, "QGemm": 7}
_LAYERS = {
    *graph.WEIGHT_INPUTS,
    *_INT8_INPUTS,
    "ConvInteger",
    "MatMulInteger",
    "MatMulIntegerToFloat",
}


class _NoSlice(Exception):
    """Tensors around the layer have no counterpart in the original."""


def result_twin(node: ir.Node, became: ir.Node, original: Collection[str]) -> Twin | None:
    """The twin of `node`: its part of the result, in which it became `became`.

    `original` names the float tensors of the original's main graph. None where the layer cannot
    be told from its neighbours.
    """
    if not isinstance(became.graph, ir.Graph):
        return None
    cut = _Cut(original)
    try:
        made, target, limits = cut.end(became)
    except _NoSlice:
        return None
    if sum(one.op_type in _LAYERS for one in cut.nodes) > 1:
        return None
    return Twin(
        layer=node.name or "",
        nodes=tuple(cut.nodes),
        reads=tuple(cut.reads.values()),
        made=made,
        target=target,
        domains=dict(became.graph.opset_imports),
        limits=limits,
    )


class _Cut:
    """Nodes of the result, copied from the tensors of the original on."""

    def __init__(self, original: Collection[str]) -> None:
        self._original = original
        self._copies: dict[ir.Value, ir.Value] = {}
        self.nodes: list[ir.Node] = []
        self.reads: dict[str, ir.Value] = {}

    def end(self, became: ir.Node) -> tuple[ir.Value, str, Limits]:
        """Follow the layer to a tensor that the original has: its copy, that name, and limits.

        Raises:
            _NoSlice: there is none.
        """
        value = became.outputs[0]
        stem = (value.name or "").removesuffix(_QUANTIZED)
        if became.op_type in _INT8_OUTPUT and value.name not in self._original:
            if stem not in self._original:
                raise _NoSlice
            made = self._copied(became)[0]
            index = _INT8_OUTPUT[became.op_type]
            limits = _range(became.inputs[index : index + 2], before=True)
            return self._apply("DequantizeLinear", made, became, index), stem, limits
        for _ in range(_MOST_STEPS):
            if value.name in self._original:
                made = self._copied(_maker(value))[value.index() or 0]
                return made, value.name or "", _limits(value)
            readers = list(value.consumers())
            if len(readers) != 1:
                break
            value = readers[0].outputs[0]
        raise _NoSlice

    def _copied(self, node: ir.Node) -> Sequence[ir.Value]:
        """Copy a node, after all that it reads; its outputs."""
        int8 = _INT8_INPUTS.get(node.op_type, ())
        inputs = [
            self._quantized(node, index) if index in int8 else self._input(value)
            for index, value in enumerate(node.inputs)
        ]
        if len(self.nodes) >= _MOST_NODES or any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        ):
            raise _NoSlice
        copy = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name = old.name
        self.nodes.append(copy)
        self._copies.update(zip(node.outputs, copy.outputs, strict=True))
        return copy.outputs

    def _input(self, value: ir.Value | None) -> ir.Value | None:
        if value is None or graph.constant(value) is not None:
            return value
        if value.name in self._original:
            return self._read(value.name or "", value.type)
        if value not in self._copies:
            self._copied(_maker(value))
        return self._copies[value]

    def _read(self, name: str, type_: ir.TypeProtocol | None) -> ir.Value:
        return self.reads.setdefault(name, ir.Value(name=name, type=type_))

    def _quantized(self, node: ir.Node, index: int) -> ir.Value | None:
        """An int8 input, from the float tensor of the original that it stands for."""
        value = node.inputs[index]
        stem = "" if value is None else (value.name or "").removesuffix(_QUANTIZED)
        if value is None or stem not in self._original or value in self._copies:
            return self._input(value)
        made = self._apply("QuantizeLinear", self._read(stem, None), node, index + 1)
        self._copies[value] = made
        return made

    def _apply(self, op: str, value: ir.Value, node: ir.Node, index: int) -> ir.Value:
        """Quantize or dequantize with the scale that a node has at input `index`."""
        if index + 1 >= len(node.inputs):
            raise _NoSlice
        copy = ir.node(op, [value, *node.inputs[index : index + 2]], num_outputs=1)
        copy.outputs[0].name = op
        self.nodes.append(copy)
        return copy.outputs[0]


def _maker(value: ir.Value) -> ir.Node:
    node = value.producer()
    if node is None:
        raise _NoSlice
    return node


def _limits(value: ir.Value) -> Limits:
    """What the quantization right behind a tensor lets through."""
    nodes = list(value.consumers())
    if not nodes or any(node.op_type != "QuantizeLinear" for node in nodes):
        return Limits()
    return _range(nodes[0].inputs[1:3], before=False)


def _range(given: Sequence[ir.Value | None], *, before: bool) -> Limits:
    """The values that a scale and a zero point can represent."""
    scale, zero = (graph.constant(value) for value in given)
    if scale is None or zero is None or scale.size != 1 or zero.size != 1:
        return Limits()
    info = np.iinfo(zero.numpy().dtype)
    low, high = (
        (end - int(zero.numpy().item())) * float(scale.numpy().item())
        for end in (info.min, info.max)
    )
    return Limits(low, high, before)
