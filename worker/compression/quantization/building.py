"""New nodes and initializers under names that the model does not have yet."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir


class Builder:
    """Adds to one model; names are those that onnxruntime.quantization gives."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        held = [value for part in model.graphs() for value in part.initializers.values()]
        made = [value for node in model.graph.all_nodes() for value in node.outputs]
        self._taken = {value.name or "" for value in (*held, *made, *model.graph.inputs)}

    def dequantized(
        self,
        before: ir.Node,
        name: str,
        values: np.ndarray,
        scale: tuple[np.ndarray | np.generic, np.ndarray | np.generic],
        axis: int | None,
        *,
        suffix: str = "",
    ) -> ir.Value:
        """A constant behind DequantizeLinear, with its scale and zero point."""
        inputs = [
            self.initializer(f"{name}_quantized", values),
            self.initializer(f"{name}{suffix}_scale", scale[0]),
            self.initializer(f"{name}{suffix}_zero_point", scale[1]),
        ]
        node = self.node("DequantizeLinear", name, inputs, axis)
        self._graph.insert_before(before, node)
        return node.outputs[0]

    def node(
        self, op: str, name: str, inputs: Sequence[ir.Value], axis: int | None = None
    ) -> ir.Node:
        """A node named after a tensor, not yet in the graph."""
        attributes = {} if axis is None else {"axis": axis}
        node = ir.node(op, inputs, attributes, name=f"{name}_{op}")
        node.outputs[0].name = self.free(f"{name}_{op}_Output")
        return node

    def initializer(self, name: str, array: np.ndarray | np.generic) -> ir.Value:
        name = self.free(name)
        value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array), name=name))
        self._graph.register_initializer(value)
        return value

    def free(self, name: str) -> str:
        """The name, or one made from it that no tensor bears; taken from now on."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name
