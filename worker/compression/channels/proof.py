"""Proof of every group: the graph without its channels equals the graph that reads zeros there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression.channels.groups import Cut, Group, Structure
from worker.compression.channels.rewrite import mask, prune
from worker.compression.channels.trace import Feed, output_names, run
from worker.compression.errors import CompressionError

TOLERANCE = 1e-4
# Share of a group's units that the proof takes out, drawn by chance.
_SHARE = 0.4
_TRIES = 3


@dataclass(frozen=True)
class Verdict:
    """What the proof of one group found: `error` relative to the largest value, or why it failed.

    `together` says that the group was proved in one run with others, each at its own layers.
    """

    group: str
    proved: bool
    error: float | None
    reason: str | None
    together: bool


@dataclass(frozen=True)
class Proof:
    """What proofs run on: a prepared model, its analysis, one real feed and a scratch folder."""

    model: ir.Model
    structure: Structure
    feed: Feed
    folder: Path
    seed: int = 0

    def of_all(self) -> list[Verdict]:
        """Prove all groups; a failure is narrowed down until it names single groups."""
        return self._prove(list(self.structure.groups), np.random.default_rng(self.seed))

    def of_cut(self, cut: Cut) -> float:
        """Error of the outputs for one cut: what is pruned against what reads zeros."""
        names = output_names(self.model)
        errors = self._compare(cut, names)
        return max(errors.values(), default=0.0)

    def _prove(self, groups: list[Group], rng: np.random.Generator) -> list[Verdict]:
        if not groups:
            return []
        verdicts = self._at_once(groups, rng)
        if verdicts is not None:
            return verdicts
        middle = len(groups) // 2
        return self._prove(groups[:middle], rng) + self._prove(groups[middle:], rng)

    def _at_once(self, groups: list[Group], rng: np.random.Generator) -> list[Verdict] | None:
        """Verdicts of groups cut together; None where one of several fails."""
        alone = len(groups) == 1
        errors: Mapping[str, float] = {}
        reason = "the pruned graph differs from the masked one"
        for _ in range(_TRIES if alone else 1):
            cut = self.structure.cut(unit for group in groups for unit in _draw(group, rng))
            try:
                errors = self._compare(cut, self._watched(groups))
            except CompressionError as error:
                reason = f"the pruned graph does not load: {error.message}"
            except Exception as error:  # ONNX Runtime raises its own types while running
                reason = f"the pruned graph does not run: {str(error)[:200]}"
            if not errors or max(errors.values()) > TOLERANCE:
                break
            if any(error > 0 for error in errors.values()) or not alone:
                break
        if errors and max(errors.values()) <= TOLERANCE:
            return [self._proved(group, errors, together=not alone) for group in groups]
        if not alone:
            return None
        worst = max(errors.values(), default=None)
        return [Verdict(groups[0].name, False, worst, reason, together=False)]

    def _proved(self, group: Group, errors: Mapping[str, float], *, together: bool) -> Verdict:
        own = [errors[name] for name in self._made_by_consumers([group]) if name in errors]
        return Verdict(group.name, True, max(own, default=0.0), None, together)

    def _watched(self, groups: Sequence[Group]) -> list[str]:
        return list(
            dict.fromkeys([*self._made_by_consumers(groups), *output_names(self.model)])
        )

    def _made_by_consumers(self, groups: Sequence[Group]) -> list[str]:
        nodes = {use.node for group in groups for use in group.consumers}
        return [
            value.name
            for node in self.model.graph
            if node.name in nodes
            for value in node.outputs
            if value.name and value.name in self.structure.axes
        ]

    def _compare(self, cut: Cut, names: Sequence[str]) -> dict[str, float]:
        """Relative error by value, over the positions that stay."""
        pruned = run(prune(self.model, self.structure, cut), self.feed, names, self.folder)
        masked = run(mask(self.model, self.structure, cut), self.feed, names, self.folder)
        return {
            name: _error(self._kept(masked[name], name, cut), pruned[name]) for name in names
        }

    def _kept(self, array: np.ndarray, name: str, cut: Cut) -> np.ndarray:
        for axis in range(array.ndim):
            array = np.compress(self.structure.kept(name, axis, cut), array, axis=axis)
        return array


def _draw(group: Group, rng: np.random.Generator) -> list[int]:
    """Units to take out: some, never all."""
    count = min(len(group.units) - 1, max(1, round(_SHARE * len(group.units))))
    return [int(unit) for unit in rng.choice(group.units, count, replace=False)]


def _error(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if not expected.size:
        return 0.0
    a, b = expected.astype(np.float64), found.astype(np.float64)
    same = np.isclose(a, b, rtol=0, atol=0, equal_nan=True)
    if same.all():
        return 0.0
    difference = np.abs(np.where(same, 0, a - b))
    scale = np.abs(a[np.isfinite(a)]).max(initial=0.0)
    error = float(difference.max() / max(scale, np.finfo(np.float32).tiny))
    return error if np.isfinite(error) else float("inf")
