"""The operators of dynamic int8, written before the layers that they stand for."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from worker.compression.quantization.building import Builder
from worker.compression.quantization.scales import quantize_weight

_CONTRIB = "com.microsoft"


class Steps:
    """Adds nodes to one model: an activation is scaled once, an equal weight stored once."""

    def __init__(self, model: ir.Model, *, bits: int, per_channel: bool) -> None:
        self._model = model
        self._builder = Builder(model)
        self._bits, self._per_channel = bits, per_channel
        self._scaled: dict[tuple[ir.Graph, ir.Value], Sequence[ir.Value]] = {}
        self._held: dict[bytes, ir.Value] = {}

    def quantized(self, node: ir.Node, value: ir.Value) -> Sequence[ir.Value]:
        """uint8 values, scale and zero point of an activation, in the graph of its reader."""
        part = _graph(node)
        if (part, value) in self._scaled:
            return self._scaled[part, value]
        name = f"{value.name}_DynamicQuantizeLinear"
        made = ir.node("DynamicQuantizeLinear", [value], name=name, num_outputs=3)
        for output, end in zip(made.outputs, ("quantized", "scale", "zero_point"), strict=True):
            output.name = self._builder.free(f"{value.name}_dynamic_{end}")
        producer = value.producer()
        if producer is not None and producer.graph is part:
            part.insert_after(producer, [made])
        else:
            part.insert_before(part[0], [made])
        self._scaled[part, value] = made.outputs
        return made.outputs

    def rounded(
        self, weight: np.ndarray, axis: int | None
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
        """A weight in int8, and its scales: one for each index of `axis`, or one in all."""
        made = quantize_weight(
            weight, axis=axis if self._per_channel else None, bits=self._bits
        )
        return made.values, made.scale

    def held(self, name: str, end: str, array: np.ndarray) -> ir.Value:
        """A constant of the main graph, which bodies can read too; equal ones are one."""
        kind = f"{array.dtype}{array.shape}".encode()
        key = hashlib.sha256(kind + np.ascontiguousarray(array).tobytes()).digest()
        if key not in self._held:
            self._held[key] = self._builder.initializer(name, end, array)
        return self._held[key]

    def before(
        self,
        node: ir.Node,
        op: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, ir.Attr | int] | None = None,
        *,
        name: str = "",
    ) -> ir.Value:
        """The output of a new node before a layer."""
        made = ir.node(op, inputs, attributes or {}, num_outputs=1)
        made.name = name or f"{node.name}_{op}"
        made.outputs[0].name = self._builder.free(f"{made.name}_output")
        _graph(node).insert_before(node, [made])
        return made.outputs[0]

    def contrib(
        self, node: ir.Node, op: str, inputs: Sequence[ir.Value | None], *, outputs: int
    ) -> ir.Node:
        """A node of ONNX Runtime's own with the attributes of the layer that it replaces."""
        self._model.opset_imports.setdefault(_CONTRIB, 1)
        made = ir.Node(
            _CONTRIB, op, inputs, list(node.attributes.values()), num_outputs=outputs
        )
        made.name = f"{node.name}_quant"
        _graph(node).insert_before(node, [made])
        return made

    def replace(self, node: ir.Node, outputs: Sequence[ir.Value]) -> None:
        """Let the outputs take over those of a layer, with their names, and remove it."""
        names = [value.name for value in node.outputs]
        for old, new in zip(node.outputs, outputs, strict=True):
            new.type, new.shape = old.type, old.shape
            old.replace_all_uses_with(new, replace_graph_outputs=True)
        _graph(node).remove(node, safe=True)
        for name, new in zip(names, outputs, strict=True):
            new.name = name


def _graph(node: ir.Node) -> ir.Graph:
    part = node.graph
    if not isinstance(part, ir.Graph):
        raise TypeError(f"{node.name} is in no graph")
    return part
