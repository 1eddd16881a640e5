"""What each layer takes at each width, timed on this CPU: latency falls in steps."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from worker.compression import graph
from worker.compression.channels.allocation import Steps
from worker.compression.channels.costs import Costs, Term
from worker.compression.channels.frontier import segment
from worker.compression.channels.rewrite import prune
from worker.compression.channels.survey import Survey
from worker.compression.channels.trace import Feed

# A width counts as slower than the full one beyond this: less is noise.
_SLOWER = 1.03
# Runs of a micro-benchmark, after one to warm up; quick layers run until this is over.
_RUNS, _MOST_RUNS = 7, 50
_LEAST_MS = 10.0
# Rounds in which two whole models are timed in turn; quick ones for so long, or so often.
_ROUNDS, _MOST_ROUNDS = 15, 200
_COMPARED_MS = 400.0
# Times that a width which seems slower is timed before that is believed.
_ATTEMPTS = 3
_TIMED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN")


Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Lookup:
    """Share of a layer's time that is left when a group has lost so many units.

    Between widths that were timed it is drawn straight.
    """

    group: int
    shares: Mapping[int, float]

    def groups(self) -> tuple[int, ...]:
        return (self.group,)

    def share(self, lost: Sequence[int]) -> float:
        counts = sorted(self.shares)
        return float(np.interp(lost[self.group], counts, [self.shares[n] for n in counts]))


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds as a cost, and the steps that are not slower than the full width."""

    costs: Costs
    steps: Sequence[Steps]


class Bench:
    """Times single nodes; the same layer with the same shapes is timed once."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._folder = folder
        self._threads = threads
        self._known: dict[tuple[object, ...], float] = {}

    def milliseconds(self, model: ir.Model, node: ir.Node, shapes: Shapes) -> float:
        key = _signature(node, shapes)
        if key not in self._known:
            self._known[key] = _least(*self.opened(model, node, shapes))
        return self._known[key]

    def opened(
        self, model: ir.Model, node: ir.Node, shapes: Shapes
    ) -> tuple[ort.InferenceSession, Feed]:
        """The node as a model of its own, and noise for its inputs."""
        rng = np.random.default_rng(0)
        feed = {
            name: rng.standard_normal(shapes[name]).astype(np.float32)
            for name in _computed(node)
        }
        path = self._folder / "layer.onnx"
        names = [value.name for value in node.outputs if value.name]
        graph.save(segment(model, [node], feed, names[:1]), path)
        return graph.session(path, threads=self._threads), feed


def _computed(node: ir.Node) -> list[str]:
    """Names of the inputs that are no weights."""
    given = [value for value in node.inputs if value is not None and value.const_value is None]
    return [value.name for value in given if value.name]


def time_layers(
    survey: Survey,
    steps: Sequence[Steps],
    *,
    rest: float,
    folder: Path,
    threads: int,
    progress: Callable[[float, str], None],
) -> LatencyTable:
    """Time layers with weights at every width of their groups; the model takes `rest` ms."""
    bench = Bench(folder, threads)
    lookups: dict[str, list[Lookup]] = {}
    allowed: list[Steps] = []
    full: dict[str, float] = {}
    for index, group in enumerate(survey.groups):
        times = {lost: _times(survey, index, lost, bench) for lost in steps[index].lost}
        full |= times[0]
        for node in times[0]:
            shares = {lost: found[node] / times[0][node] for lost, found in times.items()}
            lookups.setdefault(node, []).append(Lookup(index, shares))
        whole = sum(times[0].values())
        quick = [n for n, found in times.items() if sum(found.values()) <= _SLOWER * whole]
        allowed.append(Steps(tuple(quick)))
        progress((index + 1) / len(survey.groups), f"timing the widths of {group.name}")
    terms = [Term(full[node], tuple(lookups[node])) for node in lookups]
    terms.append(Term(max(0.0, rest - sum(full.values())), ()))
    by_group = tuple(
        tuple(i for i, term in enumerate(terms) if g in term.groups())
        for g in range(len(survey.groups))
    )
    return LatencyTable(Costs(tuple(terms), by_group), allowed)


def slower(survey: Survey, index: int, lost: int, folder: Path, threads: int) -> bool:
    """Whether the layers of one group take longer at this width than at the full one.

    Both are timed in turn, and what seems slower is timed again: load comes and goes.
    """
    units = survey.groups[index].units
    bench = Bench(folder, threads)
    sides = [
        [bench.opened(cut, node, shapes) for cut, node, shapes in _layers(survey, units, count)]
        for count in (0, lost)
    ]
    best = [[math.inf] * len(side) for side in sides]
    for _ in range(_ATTEMPTS):
        begun, runs = time.perf_counter(), 0
        while runs < _RUNS or (
            (time.perf_counter() - begun) * 1000 < _LEAST_MS and runs < _MOST_RUNS
        ):
            runs += 1
            for side, times in zip(sides, best, strict=True):
                for place, (session, feed) in enumerate(side):
                    times[place] = min(times[place], _once(session, feed))
        whole, narrow = (sum(times) for times in best)
        if narrow <= _SLOWER * whole:
            return False
    return True


def measured_speedup(
    before: Path, after: Path, feed: Feed, *, threads: int
) -> tuple[float, float]:
    """Milliseconds of the first model, and how many times faster the second is, interleaved."""
    sessions = [graph.session(path, threads=threads) for path in (before, after)]
    times: list[list[float]] = [[], []]
    for session in sessions:
        _once(session, feed)
    while len(times[0]) < _ROUNDS or (
        sum(map(sum, times)) < _COMPARED_MS and len(times[0]) < _MOST_ROUNDS
    ):
        for session, found in zip(sessions, times, strict=True):
            found.append(_once(session, feed))
    slow, fast = (statistics.median(found) for found in times)
    return slow, slow / fast


def _signature(node: ir.Node, shapes: Shapes) -> tuple[object, ...]:
    weights = [
        tuple(value.const_value.shape.numpy())
        for value in node.inputs
        if value is not None and value.const_value is not None
    ]
    attributes = sorted((name, str(value.value)) for name, value in node.attributes.items())
    given = tuple(shapes[name] for name in _computed(node))
    return (node.op_type, tuple(weights), given, *attributes)


def _times(survey: Survey, index: int, lost: int, bench: Bench) -> dict[str, float]:
    """Milliseconds of the layers that touch a group, with its first units gone."""
    return {
        node.name or "": bench.milliseconds(model, node, shapes)
        for model, node, shapes in _layers(survey, survey.groups[index].units, lost)
    }


def _layers(
    survey: Survey, units: Sequence[int], lost: int
) -> list[tuple[ir.Model, ir.Node, Shapes]]:
    """The layers that touch a group, with its first units gone: model, node and shapes."""
    cut = survey.structure.cut(units[:lost])
    model = prune(survey.model, survey.structure, cut)
    shapes = {
        name: tuple(int((~cut[labels]).sum()) for labels in axes)
        for name, axes in survey.structure.axes.items()
    }
    return [
        (model, node, shapes)
        for node in model.graph
        if node.op_type in _TIMED and _touches(survey, node, units[0])
    ]


def _touches(survey: Survey, node: ir.Node, unit: int) -> bool:
    weights = [v for v in node.inputs if v is not None and v.const_value is not None]
    return any(
        bool(np.any(labels == unit))
        for value in weights
        for labels in survey.structure.axes.get(value.name or "", ())
    )


def _least(session: ort.InferenceSession, feed: Feed) -> float:
    """Milliseconds of the quickest run: other load only ever adds to them."""
    _once(session, feed)
    times: list[float] = []
    while len(times) < _RUNS or (sum(times) < _LEAST_MS and len(times) < _MOST_RUNS):
        times.append(_once(session, feed))
    return min(times)


def _once(session: ort.InferenceSession, feed: Feed) -> float:
    started = time.perf_counter()
    session.run(None, dict(feed))
    return (time.perf_counter() - started) * 1000
