"""Which channels of a graph must go together, and which may go at all."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from worker.compression.channels.atoms import FIXED, Labels
from worker.compression.channels.rules import apply_rule
from worker.compression.channels.site import Place, Site, Ties, Use
from worker.compression.channels.trace import Trace

# True at every atom that is removed.
Cut = npt.NDArray[np.bool_]
Signature = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Group:
    """Units that behave alike: each a set of positions that is removed as a whole.

    `units` are the sets, in the order of the first producer's axis. `reason` says why the group
    is pinned; None where it may be pruned.
    """

    name: str
    units: tuple[int, ...]
    producers: tuple[Place, ...]
    consumers: tuple[Use, ...]
    reason: str | None


@dataclass(frozen=True)
class Structure:
    """The analysed graph: the set of every position of every axis, and the groups of sets.

    `idle`: matrices of weights that make channels of no group, each with the reason.
    """

    trace: Trace
    axes: Mapping[str, tuple[Labels, ...]]
    groups: tuple[Group, ...]
    pinned: tuple[Group, ...]
    atoms: int
    idle: tuple[tuple[str, str], ...] = ()

    def cut(self, removed: Iterable[int]) -> Cut:
        """Mark units as removed."""
        marks = np.zeros(self.atoms, dtype=bool)
        marks[list(removed)] = True
        marks[FIXED] = False
        return marks

    def kept(self, value: str, axis: int, cut: Cut) -> npt.NDArray[np.bool_]:
        """Which positions of an axis stay."""
        return ~cut[self.axes[value][axis]]


def analyse(model: ir.Model, trace: Trace) -> Structure:
    """Find the channel groups of a prepared model."""
    ties = Ties(trace, model.graph.initializers)
    for value in model.graph.inputs:
        name = value.name or ""
        ties.axes[name] = [ties.atoms.fresh(size) for size in trace.shapes.get(name, ())]
        _pin_value(ties, name, f"input {name} keeps its shape")
    for node in model.graph:
        apply_rule(Site(node, ties))
    for value in model.graph.outputs:
        _pin_value(ties, value.name or "", f"output {value.name} keeps its shape")
    axes = {
        name: tuple(ties.atoms.roots(labels) for labels in given)
        for name, given in ties.axes.items()
    }
    return _structure(ties, axes)


def _pin_value(ties: Ties, name: str, why: str) -> None:
    for labels in ties.labels(name):
        ties.atoms.pin(labels, why)


def _structure(ties: Ties, axes: Mapping[str, tuple[Labels, ...]]) -> Structure:
    sets = _signatures(axes)
    producers = _by_root(ties.producers, axes)
    consumers = _uses_by_root(ties.consumers, axes)
    order = [root for root in _in_order(ties.producers, axes) if root in sets]
    alike: dict[tuple[Signature, str | None], list[int]] = defaultdict(list)
    for root in order:
        alike[(sets[root], ties.atoms.reason(root))].append(root)
    names: set[str] = set()
    groups = [
        _group(units, producers, consumers, reason, names)
        for (_, reason), units in alike.items()
    ]
    return Structure(
        ties.trace,
        axes,
        tuple(group for group in groups if group.reason is None),
        tuple(group for group in groups if group.reason is not None),
        len(ties.atoms),
        tuple(_idle(ties, axes)),
    )


def _idle(ties: Ties, axes: Mapping[str, tuple[Labels, ...]]) -> Iterator[tuple[str, str]]:
    """Weights behind operators without a rule: packed, already quantized, computed with."""
    producing = {place.value for place in ties.producers}
    for name, value in ties.initializers.items():
        is_index = value.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)
        wide = sum(labels.size > 1 for labels in axes.get(name, ()))
        if name in producing or is_index or wide < 2:
            continue
        roots = [int(root) for labels in axes[name] for root in np.unique(labels)]
        reasons = [why for root in roots if (why := ties.atoms.reason(root))]
        if reasons:
            yield name, reasons[0]


def _group(
    units: list[int],
    producers: Mapping[int, list[Place]],
    consumers: Mapping[int, list[Use]],
    reason: str | None,
    names: set[str],
) -> Group:
    first = units[0]
    made, used = tuple(producers.get(first, ())), tuple(consumers.get(first, ()))
    if reason is None and not used:
        reason = "no layer with weights sums over these channels"
    if reason is None and len(units) < 2:
        reason = "it is one inseparable unit"
    name = made[0].value
    while name in names:
        name += "'"
    names.add(name)
    return Group(name, tuple(units), made, used, reason)


def _signatures(axes: Mapping[str, tuple[Labels, ...]]) -> dict[int, Signature]:
    """Where each set occurs, and how often."""
    found: dict[int, list[tuple[str, int, int]]] = defaultdict(list)
    for name, given in axes.items():
        for axis, roots in enumerate(given):
            for root, count in zip(*np.unique(roots, return_counts=True), strict=True):
                if root != FIXED:
                    found[int(root)].append((name, axis, int(count)))
    return {root: tuple(places) for root, places in found.items()}


def _by_root(
    places: Iterable[Place], axes: Mapping[str, tuple[Labels, ...]]
) -> dict[int, list[Place]]:
    found: dict[int, list[Place]] = defaultdict(list)
    for place in dict.fromkeys(places):
        for root in np.unique(axes[place.value][place.axis]).tolist():
            found[root].append(place)
    return found


def _uses_by_root(
    uses: Iterable[Use], axes: Mapping[str, tuple[Labels, ...]]
) -> dict[int, list[Use]]:
    found: dict[int, list[Use]] = defaultdict(list)
    for use in dict.fromkeys(uses):
        for root in np.unique(axes[use.place.value][use.place.axis]).tolist():
            found[root].append(use)
    return found


def _in_order(places: Iterable[Place], axes: Mapping[str, tuple[Labels, ...]]) -> Iterable[int]:
    """Sets of producing axes, each once, in graph order and then in the order of the axis."""
    roots = [axes[place.value][place.axis] for place in places]
    return dict.fromkeys(np.concatenate(roots).tolist()) if roots else {}
