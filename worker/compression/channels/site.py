"""What the rule of an operator sees of the graph, and what it may state about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from worker.compression.channels.atoms import Atoms, Labels, fixed
from worker.compression.channels.trace import Shape, Trace

Axes = list[Labels]


@dataclass(frozen=True, order=True)
class Place:
    """One axis of one initializer."""

    value: str
    axis: int


@dataclass(frozen=True)
class Use:
    """A node that sums over an axis of its weight."""

    place: Place
    node: str


@dataclass
class Ties:
    """What the rules have stated so far."""

    trace: Trace
    initializers: Mapping[str, ir.Value]
    atoms: Atoms = field(default_factory=Atoms)
    axes: dict[str, Axes] = field(default_factory=dict)
    producers: list[Place] = field(default_factory=list)
    consumers: list[Use] = field(default_factory=list)

    def labels(self, name: str) -> Axes:
        """Labels of each axis of a value; an initializer gets fresh ones at first."""
        if name not in self.axes:
            shape = self.trace.shapes.get(name, ())
            fresh = self.atoms.fresh if name in self.initializers else fixed
            self.axes[name] = [fresh(size) for size in shape]
        return self.axes[name]


@dataclass(frozen=True)
class Site:
    """One node, and what its rule may read and state."""

    node: ir.Node
    ties: Ties

    @property
    def why(self) -> str:
        return f"{self.node.op_type} {self.node.name}"

    def name(self, index: int) -> str | None:
        """Name of an input; None where an optional one is left out."""
        value = self.node.inputs[index] if index < len(self.node.inputs) else None
        return None if value is None or not value.name else value.name

    def given(self, index: int) -> Axes:
        """Labels of an input that is there."""
        name = self.name(index)
        return [] if name is None else self.ties.labels(name)

    def shape(self, index: int) -> Shape:
        return self.ties.trace.shapes.get(self.name(index) or "", ())

    def made_shape(self, index: int = 0) -> Shape:
        return self.ties.trace.shapes.get(self.node.outputs[index].name or "", ())

    def is_constant(self, index: int) -> bool:
        return self.name(index) in self.ties.initializers

    def made_by(self, index: int) -> str:
        """The operator that an input comes from."""
        value = self.node.inputs[index]
        node = None if value is None else value.producer()
        return "a graph input" if node is None else node.op_type

    def constant(self, index: int) -> np.ndarray | None:
        """An initializer's values; None where the input is computed or left out."""
        value = self.ties.initializers.get(self.name(index) or "")
        return None if value is None or value.const_value is None else value.const_value.numpy()

    def integers(self, index: int, attribute: str) -> list[int] | None:
        """A setting that is an attribute in old operator sets, a constant input in new ones."""
        if attribute in self.node.attributes:
            return list(self.node.attributes.get_ints(attribute, []))
        array = self.constant(index)
        return None if array is None else [int(entry) for entry in np.atleast_1d(array)]

    def integer(self, attribute: str, default: int) -> int:
        return self.node.attributes.get_int(attribute, default)

    def make(self, axes: Axes, index: int = 0) -> None:
        """State the labels of an output."""
        self.ties.axes[self.node.outputs[index].name or ""] = axes

    def repeated(self, size: int) -> Labels:
        """Labels of an axis along which all is alike."""
        return self.ties.atoms.fresh(size) if size > 1 else fixed(size)

    def make_fixed(self) -> None:
        for index in range(len(self.node.outputs)):
            self.make([fixed(size) for size in self.made_shape(index)], index)

    def join(self, left: Labels, right: Labels) -> None:
        self.ties.atoms.join(left, right, f"{self.why} ties it to an axis that stays")

    def pin(self, labels: Labels, what: str) -> None:
        self.ties.atoms.pin(labels, f"{self.why} {what}")

    def pin_all(self, what: str) -> None:
        """Keep every axis of everything this node reads, captured values of bodies included."""
        for name in read_by(self.node):
            for labels in self.ties.labels(name):
                self.pin(labels, what)
        self.make_fixed()

    def produce(self, index: int, axis: int) -> None:
        """An axis of a weight makes channels: it shrinks with its group."""
        place = self._place(index, axis)
        if place is not None:
            self.ties.producers.append(place)

    def consume(self, index: int, axis: int) -> None:
        """The node sums over an axis of a weight: zeros there are the same as no channel."""
        place = self._place(index, axis)
        if place is not None:
            self.ties.consumers.append(Use(place, self.node.name or ""))

    def _place(self, index: int, axis: int) -> Place | None:
        name = self.name(index)
        if name is None or name not in self.ties.initializers:
            return None
        return Place(name, axis % len(self.ties.labels(name)))


def read_by(node: ir.Node) -> list[str]:
    """Names of the values that a node reads, by its bodies from outside included."""
    names = [value.name for value in node.inputs if value is not None and value.name]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            bodies = [attribute.as_graph()]
        elif attribute.type == ir.AttributeType.GRAPHS:
            bodies = list(attribute.as_graphs())
        else:
            continue
        for body in bodies:
            names += [value.name for value in body.outputs if value.name]
            names += [name for inner in body for name in read_by(inner)]
    return names


Rule = Callable[[Site], None]
