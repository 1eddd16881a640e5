"""One node of a graph that loses channels, with what its tensors were and will be."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.compression.channels.groups import Cut, Structure

Mask = np.ndarray


@dataclass(frozen=True)
class Surgery:
    """A node of the copy that is cut, and the cut."""

    node: ir.Node
    graph: ir.Graph
    structure: Structure
    cut: Cut

    def mask(self, value: ir.Value | None, axis: int) -> Mask:
        """Which positions of an axis stay."""
        name = "" if value is None else value.name or ""
        return self.structure.kept(name, axis, self.cut)

    def before(self, value: ir.Value | None) -> tuple[int, ...]:
        name = "" if value is None else value.name or ""
        return tuple(labels.size for labels in self.structure.axes.get(name, ()))

    def after(self, value: ir.Value | None) -> tuple[int, ...]:
        return tuple(
            int(self.mask(value, axis).sum()) for axis in range(len(self.before(value)))
        )

    def changes(self, value: ir.Value | None) -> bool:
        return self.before(value) != self.after(value)

    def constant(self, index: int) -> np.ndarray | None:
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return None if value is None or value.const_value is None else value.const_value.numpy()

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """A setting that is an attribute in old operator sets, a constant input in new ones."""
        if attribute in self.node.attributes:
            return list(self.node.attributes.get_ints(attribute, []))
        array = self.constant(index)
        return None if array is None else [int(entry) for entry in np.atleast_1d(array)]

    def set_integers(self, index: int, given: list[int], attribute: str) -> None:
        """Change such a setting where it stands."""
        if attribute in self.node.attributes:
            self.node.attributes[attribute] = ir.AttrInt64s(attribute, given)
            return
        before = self.constant(index)
        dtype = np.int64 if before is None else before.dtype
        self.set_input(index, np.array(given, dtype=dtype), attribute)

    def set_input(self, index: int, array: np.ndarray, hint: str) -> None:
        """Give the node a constant of its own; the old one may serve other nodes."""
        if index >= len(self.node.inputs):
            self.node.resize_inputs(index + 1)
        self.node.replace_input_with(index, self.constant_of(array, hint))

    def constant_of(self, array: np.ndarray, hint: str) -> ir.Value:
        """A new initializer of the graph."""
        name = f"{self.node.name}.{hint}"
        while name in self.graph.initializers:
            name += "_"
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(array.shape),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value
