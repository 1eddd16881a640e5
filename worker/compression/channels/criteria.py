"""Which channels matter least: a function per criterion, with the error at each width."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from worker.compression.channels.groups import Group, Structure
from worker.compression.channels.layers import Layer
from worker.compression.channels.moments import RIDGE, Array, Moments, ridged

Criterion = Literal["l1", "l2", "activation", "apoz", "wanda", "obs"]

# The greedy search removes this share of a group at a time, and ends when this share is left.
_CHUNK = 1 / 32
_LEAST_ALIVE = 1 / 8
# The effect on the outputs is probed where these shares of a group are gone.
_PROBED = (1 / 8, 1 / 4, 1 / 2, 2)


@dataclass(frozen=True)
class Probe:
    """Re-solved matrices, by weight, after `units` units are gone: their rows are zero."""

    units: int
    matrices: Mapping[str, Array]


@dataclass(frozen=True)
class Ranking:
    """Units from the least important on; `errors[k]` is the error after k of them are gone."""

    order: tuple[int, ...]
    errors: Array
    probes: tuple[Probe, ...] = ()


@dataclass(frozen=True)
class Seen:
    """A consumer of the group, its matrix and what its inputs were on the samples."""

    layer: Layer
    matrix: np.ndarray
    moments: Moments


@dataclass(frozen=True)
class Evidence:
    """All that a criterion may judge a group by."""

    group: Group
    structure: Structure
    weights: Mapping[str, np.ndarray]
    seen: Sequence[Seen]

    def rows_of(self, seen: Seen) -> list[np.ndarray]:
        """Rows of a consumer's matrix that each unit owns."""
        labels = seen.layer.row_labels(self.structure)
        return [np.flatnonzero(labels == unit) for unit in self.group.units]


def l1(evidence: Evidence) -> Ranking:
    """Sum of absolute weights that make the unit (Li et al. 2017)."""
    return _ranked(evidence, _norms(evidence, lambda part: float(np.abs(part).sum())))


def l2(evidence: Evidence) -> Ranking:
    """Energy of the weights that make the unit."""
    return _ranked(evidence, _norms(evidence, lambda part: float(np.square(part).sum())))


def activation(evidence: Evidence) -> Ranking:
    """Mean absolute activation on the samples: the units that hardly fire go first."""
    return _ranked(evidence, _per_unit(evidence, lambda seen: seen.moments.magnitude()))


def apoz(evidence: Evidence) -> Ranking:
    """Share of positions at which the unit is not zero (Hu et al. 2016)."""
    return _ranked(evidence, _per_unit(evidence, lambda seen: seen.moments.firing()))


def wanda(evidence: Evidence) -> Ranking:
    """Energy of the input times energy of the weights that read it (Sun et al. 2024)."""

    def score(seen: Seen) -> Array:
        made: Array = seen.moments.energy() * np.square(seen.matrix, dtype=np.float64).sum(
            axis=2
        )
        return made

    return _ranked(evidence, _per_unit(evidence, score))


def obs(evidence: Evidence) -> Ranking:
    """Greedy optimal brain surgeon on blocks: the error left after the consumers are re-solved.

    Removes the units of least tr(W_I' inv(H_II) W_I), H the inverse of the ridged Gram, and
    updates W and H as if the rest were solved again (Hassibi & Stork 1993; algorithms.md 1.4).
    """
    found = [(seen.layer.weight, _problem(evidence, seen)) for seen in evidence.seen]
    problems = {weight: problem for weight, problem in found if problem is not None}
    if not problems:
        return wanda(evidence) if evidence.seen else l2(evidence)
    units = evidence.group.units
    alive = np.arange(len(units))
    order: list[int] = []
    errors = [0.0]
    chunk = max(1, int(len(units) * _CHUNK))
    probes: list[Probe] = []
    while len(alive) > _LEAST_ALIVE * len(units):
        costs = np.sum([problem.costs(alive) for problem in problems.values()], axis=0)
        picked = np.argsort(costs, kind="stable")[:chunk]
        gone, shares = alive[picked], costs[picked]
        total = sum(problem.remove(gone) for problem in problems.values())
        errors += (errors[-1] + total * _steps(shares)).tolist()
        order += [units[index] for index in gone]
        alive = np.delete(alive, picked)
        if len(order) >= _PROBED[len(probes)] * len(units):
            probes.append(Probe(len(order), {n: p.weights for n, p in problems.items()}))
    order += [units[index] for index in alive]
    errors += [errors[-1] + 1.0] * len(alive)
    return Ranking(tuple(order), np.array(errors), tuple(probes))


def _steps(shares: Array) -> Array:
    """How much of a common error each of several units brings, summed up to 1."""
    rising = np.cumsum(shares)
    if rising[-1] <= np.finfo(np.float32).tiny:
        rising = np.arange(1.0, len(shares) + 1)
    made: Array = rising / rising[-1]
    return made


class Problem:
    """One consumer during the greedy search: its weights, the inverse over what is alive."""

    def __init__(
        self, gram: Array, weights: Array, rows: Sequence[np.ndarray], *, seen: int
    ) -> None:
        # Few rows cannot tell which of many inputs make up for another.
        lifted, _ = ridged(gram, RIDGE * (1 + gram.shape[-1] / seen))
        self._inverse = np.linalg.inv(lifted).astype(np.float64)
        self._weights = weights.astype(np.float64)
        self._alive = np.arange(weights.shape[1])
        self._shape = weights.shape
        self._rows = [own.copy() for own in rows]
        energy = float(np.sum((gram @ self._weights) * self._weights))
        self._scale = 1.0 / max(energy, np.finfo(float).tiny)

    @property
    def weights(self) -> Array:
        """The matrix as it stands, at its full size."""
        made = np.zeros(self._shape)
        made[:, self._alive] = self._weights
        return made

    def costs(self, units: np.ndarray) -> Array:
        """Error that each unit would add if it went alone, relative to the output's energy."""
        found = np.zeros(len(units))
        sizes = np.array([len(self._rows[unit]) for unit in units])
        for size in set(sizes.tolist()) - {0}:
            here = np.flatnonzero(sizes == size)
            rows = np.stack([self._rows[unit] for unit in units[here]])
            block = self._inverse[:, rows[:, :, None], rows[:, None, :]]
            weights = self._weights[:, rows]
            found[here] = (weights * np.linalg.solve(block, weights)).sum(axis=(0, 2, 3))
        return found * self._scale

    def remove(self, units: np.ndarray) -> float:
        """Take units out, re-solve the rest, and give the error that this adds."""
        rows = np.concatenate([self._rows[unit] for unit in units])
        if not rows.size:
            return 0.0
        block = self._inverse[:, rows[:, None], rows[None, :]]
        weights = self._weights[:, rows]
        solved = np.linalg.solve(block, weights)
        error = float((weights * solved).sum()) * self._scale
        column = self._inverse[:, :, rows]
        self._weights -= column @ solved
        self._inverse -= column @ np.linalg.solve(block, np.swapaxes(column, 1, 2))
        self._drop(rows)
        return error

    def _drop(self, rows: np.ndarray) -> None:
        keep = np.ones(len(self._alive), dtype=bool)
        keep[rows] = False
        self._alive = self._alive[keep]
        self._weights = self._weights[:, keep]
        self._inverse = self._inverse[:, keep][:, :, keep]
        place = np.cumsum(keep) - 1
        self._rows = [place[own[keep[own]]] for own in self._rows]


def _problem(evidence: Evidence, seen: Seen) -> Problem | None:
    gram = seen.moments.gram(centred=seen.layer.takes_bias)
    if not np.isfinite(gram).all() or not np.diagonal(gram, axis1=1, axis2=2).any():
        return None
    rows = evidence.rows_of(seen)
    return Problem(gram, seen.matrix.astype(np.float64), rows, seen=seen.moments.count)


def _norms(evidence: Evidence, measure: Callable[[np.ndarray], float]) -> Array:
    """Measure of the weights that make each unit, each producer counting by its own mean."""
    total = np.zeros(len(evidence.group.units))
    for place in evidence.group.producers:
        labels = evidence.structure.axes[place.value][place.axis]
        weight = np.moveaxis(evidence.weights[place.value], place.axis, 0).astype(np.float64)
        found = np.array([measure(weight[labels == unit]) for unit in evidence.group.units])
        total += found / max(found.mean(), np.finfo(float).tiny)
    return total


def _per_unit(evidence: Evidence, score: Callable[[Seen], Array]) -> Array:
    """A score of rows summed over each unit's, each consumer counting by its own mean."""
    total = np.zeros(len(evidence.group.units))
    for seen in evidence.seen:
        rows = score(seen)
        found = np.array([rows[:, own].sum() for own in evidence.rows_of(seen)])
        total += found / max(found.mean(), np.finfo(float).tiny)
    return total


def _ranked(evidence: Evidence, scores: Array) -> Ranking:
    order = np.argsort(scores, kind="stable")
    share = np.cumsum(scores[order]) / max(float(scores.sum()), np.finfo(float).tiny)
    return Ranking(
        tuple(evidence.group.units[index] for index in order), np.concatenate([[0.0], share])
    )


CRITERIA: dict[Criterion, Callable[[Evidence], Ranking]] = {
    "l1": l1,
    "l2": l2,
    "activation": activation,
    "apoz": apoz,
    "wanda": wanda,
    "obs": obs,
}
# These need no samples.
WITHOUT_DATA: frozenset[Criterion] = frozenset({"l1", "l2"})
