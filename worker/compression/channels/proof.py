"""Proof of every group: the graph without channels equals the graph that reads zeros there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression.channels.groups import Cut, Group, Structure
from worker.compression.channels.rewrite import mask, prune
from worker.compression.channels.trace import Feed, output_names, run
from worker.compression.errors import CompressionError, first_line

TOLERANCE = 1e-4
# Shares of a group's units that proofs take out, drawn by chance, at least one unit: a wrong
# order of few units may look right in one draw.
_SHARES = (0.4, 0.0, 0.7)


@dataclass(frozen=True)
class Verdict:
    """What the proof of one group found: error relative to the largest value, or why it failed.

    `together`: proved in one run with others, each at the outputs of its own layers.
    """

    group: str
    proved: bool
    error: float | None
    reason: str | None
    together: bool


@dataclass(frozen=True)
class Difference:
    """Pruned against masked at one value; `silent` where there are only zeros to compare."""

    error: float
    silent: bool


@dataclass(frozen=True)
class Proof:
    """What proofs run on: a prepared model, its analysis, real feeds and a scratch folder."""

    model: ir.Model
    structure: Structure
    feeds: Sequence[Feed]
    folder: Path
    seed: int = 0

    def of_all(self) -> list[Verdict]:
        """Prove all groups; a failure is narrowed down until it names single groups."""
        return self._prove(list(self.structure.groups), np.random.default_rng(self.seed))

    def of_cut(self, cut: Cut) -> float:
        """Error of the outputs for one cut: what is pruned against what reads zeros."""
        found = self._compare(cut, output_names(self.model))
        return max((difference.error for difference in found.values()), default=0.0)

    def _prove(self, groups: list[Group], rng: np.random.Generator) -> list[Verdict]:
        if not groups:
            return []
        if len(groups) == 1:
            return [self._alone(groups[0], rng)]
        found = self._attempt(groups, rng)
        if isinstance(found, str) or _worst(found) > TOLERANCE:
            middle = len(groups) // 2
            return self._prove(groups[:middle], rng) + self._prove(groups[middle:], rng)
        return [self._own(group, found, rng) for group in groups]

    def _own(
        self, group: Group, found: Mapping[str, Difference], rng: np.random.Generator
    ) -> Verdict:
        """The verdict of one group out of a common run; alone again where nothing was heard."""
        own = {name: found[name] for name in self._heard_at([group]) if name in found}
        if not own or all(difference.silent for difference in own.values()):
            return self._alone(group, rng)
        return Verdict(group.name, True, _worst(own), None, together=True)

    def _alone(self, group: Group, rng: np.random.Generator) -> Verdict:
        found = self._attempt([group], rng)
        if isinstance(found, str):
            return Verdict(group.name, False, None, found, together=False)
        worst = _worst(found)
        if worst > TOLERANCE:
            reason = "the pruned graph differs from the masked one"
            return Verdict(group.name, False, worst, reason, together=False)
        return Verdict(group.name, True, worst, None, together=False)

    def _attempt(
        self, groups: Sequence[Group], rng: np.random.Generator
    ) -> dict[str, Difference] | str:
        """Worst differences over drawn cuts, or why a pruned graph cannot be run."""
        worst: dict[str, Difference] = {}
        for share in _SHARES:
            cut = self.structure.cut(u for group in groups for u in _draw(group, share, rng))
            names = dict.fromkeys([*self._heard_at(groups), *output_names(self.model)])
            try:
                found = self._compare(cut, list(names))
            except CompressionError as error:
                return f"the pruned graph does not load: {error.message[:200]}"
            except Exception as error:  # numpy and ONNX Runtime raise types of their own
                return f"the pruned graph does not run: {first_line(error, limit=200)}"
            worst = {name: _worse(worst.get(name), found[name]) for name in found}
            if _worst(worst) > TOLERANCE:
                break
        return worst

    def _heard_at(self, groups: Sequence[Group]) -> list[str]:
        """Values that the consumers of the groups make."""
        nodes = {use.node for group in groups for use in group.consumers}
        return [
            value.name
            for node in self.model.graph
            if node.name in nodes
            for value in node.outputs
            if value.name and value.name in self.structure.axes and value.uses()
        ]

    def _compare(self, cut: Cut, names: Sequence[str]) -> dict[str, Difference]:
        """Pruned against masked over the positions that stay, the worst of all feeds."""
        pruned = run(prune(self.model, self.structure, cut), self.feeds, names, self.folder)
        masked = run(mask(self.model, self.structure, cut), self.feeds, names, self.folder)
        found: dict[str, Difference] = {}
        for name in names:
            pairs = [
                (self._kept(wide[name], name, cut), narrow[name])
                for wide, narrow in zip(masked, pruned, strict=True)
            ]
            found[name] = Difference(
                max(_error(*pair) for pair in pairs), all(not np.any(wide) for wide, _ in pairs)
            )
        return found

    def _kept(self, array: np.ndarray, name: str, cut: Cut) -> np.ndarray:
        for axis in range(array.ndim):
            kept = self.structure.kept(name, axis, cut)
            # Axes that nothing is cut from may have another size with this feed.
            array = array if kept.all() else np.compress(kept, array, axis=axis)
        return array


def _worst(found: Mapping[str, Difference]) -> float:
    return max((difference.error for difference in found.values()), default=0.0)


def _worse(one: Difference | None, other: Difference) -> Difference:
    if one is None:
        return other
    return Difference(max(one.error, other.error), one.silent and other.silent)


def _draw(group: Group, share: float, rng: np.random.Generator) -> list[int]:
    """Units to take out: some, never all."""
    count = min(len(group.units) - 1, max(1, round(share * len(group.units))))
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
