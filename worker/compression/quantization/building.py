"""New nodes and initializers under names that the model does not have yet."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

# Converters from TensorFlow chain the names of whole layers: with two nodes and five tensors
# for each, names alone would make a small model grow.
_LONGEST_NAME = 40


class Builder:
    """Adds to one model, named as onnxruntime.quantization does, but never at length."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        held = [value for part in model.graphs() for value in part.initializers.values()]
        made = [value for node in model.graph.all_nodes() for value in node.outputs]
        self._taken = {value.name or "" for value in (*held, *made, *model.graph.inputs)}
        self._short: dict[str, str] = {}

    def dequantized(
        self,
        before: ir.Node,
        name: str,
        values: np.ndarray,
        scale: Sequence[np.ndarray | np.generic],
        axis: int | None,
        *,
        suffix: str = "",
    ) -> ir.Value:
        """A constant behind DequantizeLinear; `scale` may have its zero point behind it."""
        inputs = [self.initializer(name, "_quantized", values)]
        for end, array in zip(("_scale", "_zero_point"), scale, strict=False):
            inputs.append(self.initializer(name, suffix + end, array))
        node = self.node("DequantizeLinear", name, inputs, axis)
        self._graph.insert_before(before, node)
        return node.outputs[0]

    def node(
        self, op: str, name: str, inputs: Sequence[ir.Value], axis: int | None = None
    ) -> ir.Node:
        """A node named after a tensor, not yet in the graph."""
        attributes = {} if axis is None else {"axis": axis}
        node = ir.node(op, inputs, attributes, name=f"{self._shortened(name)}_{op}")
        node.outputs[0].name = self.free(f"{node.name}_Output")
        return node

    def initializer(
        self,
        name: str,
        end: str,
        array: np.ndarray | np.generic,
        *,
        part: ir.Graph | None = None,
    ) -> ir.Value:
        """A constant named after a tensor and what it is of it, in the main graph or a body."""
        name = self.free(self._shortened(name) + end)
        value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array), name=name))
        (part or self._graph).register_initializer(value)
        return value

    def _shortened(self, name: str) -> str:
        if len(name) <= _LONGEST_NAME:
            return name
        return self._short.setdefault(name, f"{name[: _LONGEST_NAME // 2]}~{len(self._short)}")

    def free(self, name: str) -> str:
        """The name, or one made from it that no tensor bears; taken from now on."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
