"""What a model costs, as a function of how many units each group has lost."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import onnx_ir as ir

from worker.compression.channels.groups import Structure
from worker.compression.channels.site import Place

Of = Literal["macs", "parameters", "channels"]


@dataclass(frozen=True)
class Factor:
    """An axis: its size, and how many positions each unit of a group takes of it."""

    size: int
    per_unit: tuple[tuple[int, int], ...]

    def groups(self) -> tuple[int, ...]:
        return tuple(group for group, _ in self.per_unit)

    def share(self, lost: Sequence[int]) -> float:
        return 1 - sum(many * lost[group] for group, many in self.per_unit) / self.size


class Shrinks(Protocol):
    """What makes a cost smaller as groups lose units."""

    def groups(self) -> tuple[int, ...]: ...

    def share(self, lost: Sequence[int]) -> float: ...


@dataclass(frozen=True)
class Term:
    """A cost that shrinks with the product of its axes."""

    amount: float
    factors: tuple[Shrinks, ...]

    def groups(self) -> frozenset[int]:
        return frozenset(group for factor in self.factors for group in factor.groups())

    def cost(self, lost: Sequence[int]) -> float:
        made = self.amount
        for factor in self.factors:
            made *= factor.share(lost)
        return made


@dataclass(frozen=True)
class Costs:
    """All terms of one cost; those of each group are listed for quick differences."""

    terms: tuple[Term, ...]
    by_group: tuple[tuple[int, ...], ...]

    def total(self, lost: Sequence[int]) -> float:
        return sum(term.cost(lost) for term in self.terms)

    def saved(self, lost: Sequence[int]) -> float:
        """Share of the whole that is gone."""
        whole = self.total([0] * len(lost))
        return 1 - self.total(lost) / whole if whole else 0.0

    def saving(self, lost: Sequence[int], group: int, units: int) -> float:
        """What it saves to take further units out of one group."""
        after = list(lost)
        after[group] += units
        return sum(
            self.terms[index].cost(lost) - self.terms[index].cost(after)
            for index in self.by_group[group]
        )


def costs(model: ir.Model, structure: Structure, of: Of, macs: Mapping[str, int]) -> Costs:
    """The cost `of` the model; `macs` are those of its nodes."""
    makers = {"macs": _mac_terms, "parameters": _parameter_terms, "channels": _channel_terms}
    terms = tuple(makers[of](model, structure, macs))
    by_group: list[list[int]] = [[] for _ in structure.groups]
    for index, term in enumerate(terms):
        for group in term.groups():
            by_group[group].append(index)
    return Costs(terms, tuple(tuple(indices) for indices in by_group))


def factor(structure: Structure, value: str, axis: int) -> Factor:
    """How an axis shrinks with the groups that lie on it."""
    roots = structure.axes[value][axis]
    unique, counts = np.unique(roots, return_counts=True)
    per_root = dict(zip(unique.tolist(), counts.tolist(), strict=True))
    per_unit = [
        (index, per_root[group.units[0]])
        for index, group in enumerate(structure.groups)
        if group.units[0] in per_root
    ]
    return Factor(max(1, roots.size), tuple(per_unit))


def _factors(structure: Structure, value: str) -> tuple[Factor, ...]:
    found = [factor(structure, value, axis) for axis in range(len(structure.axes[value]))]
    return tuple(factor for factor in found if factor.per_unit)


def _mac_terms(
    model: ir.Model, structure: Structure, macs: Mapping[str, int]
) -> Iterable[Term]:
    for node in model.graph:
        count = macs.get(node.name or "", 0)
        weights = _weights(node, structure)
        total = sum(size for _, size in weights)
        for name, size in weights:
            yield Term(count * size / total, _factors(structure, name))
        if not weights and count:
            yield Term(count, _product_factors(node, structure))


def _weights(node: ir.Node, structure: Structure) -> list[tuple[str, int]]:
    """The matrices of weights that a node multiplies with, and their sizes."""
    indices = (1, 2) if node.op_type in ("LSTM", "GRU", "RNN") else (0, 1)
    found = []
    for index in indices:
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or value.const_value is None or not value.name:
            continue
        if value.name in structure.axes and len(value.const_value.shape) > 1:
            found.append((value.name, value.const_value.size))
    return found


def _product_factors(node: ir.Node, structure: Structure) -> tuple[Factor, ...]:
    """Axes of a product of two activations: those it makes; the summed one stays."""
    name = node.outputs[0].name or ""
    return _factors(structure, name) if name in structure.axes else ()


def _parameter_terms(
    model: ir.Model, structure: Structure, macs: Mapping[str, int]
) -> Iterable[Term]:
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype.numpy().kind != "f":
            continue
        factors = _factors(structure, name) if name in structure.axes else ()
        yield Term(float(tensor.size), factors)


def _channel_terms(
    model: ir.Model, structure: Structure, macs: Mapping[str, int]
) -> Iterable[Term]:
    places: dict[Place, None] = {}
    for group in (*structure.groups, *structure.pinned):
        places.update(dict.fromkeys(group.producers))
    for place in places:
        size = structure.axes[place.value][place.axis].size
        yield Term(float(size), (factor(structure, place.value, place.axis),))
