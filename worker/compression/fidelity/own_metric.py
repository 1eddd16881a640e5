"""The user's own task metric, computed by code of theirs outside of the library."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.compression.calibration import CalibrationSet
from worker.compression.errors import CompressionWarning, InvalidData
from worker.compression.fidelity.decoding import Pair, agreement
from worker.compression.fidelity.intervals import of_mean
from worker.compression.fidelity.measures import Accuracy, Fidelity
from worker.compression.fidelity.reference import Reference


@dataclass(frozen=True)
class OwnMetric:
    """`score` gives the values of a model file, higher is better: one, or one per sample."""

    name: str
    score: Callable[[Path], Sequence[float]]


class Scored:
    """A reference whose accuracy is the user's own metric.

    The metric is the same for samples that select and samples that report: what it is computed
    on is the user's matter.
    """

    def __init__(self, reference: Reference, metric: OwnMetric, before: np.ndarray) -> None:
        self._reference, self._metric, self._before = reference, metric, before

    def compare(self, path: Path) -> tuple[Fidelity, Accuracy | None]:
        """Judge a result.

        Raises:
            InvalidData: the metric gave no finite numbers, or another count of them.
        """
        fidelity, _ = self._reference.compare(path)
        return fidelity, accuracy(self._metric.name, self._before, scores(self._metric, path))


class Decoded:
    """A reference whose accuracy is the share of tokens that a pair decodes as before."""

    def __init__(self, reference: Reference, both: Pair, samples: CalibrationSet) -> None:
        self._reference, self._pair, self._samples = reference, both, samples
        self._before = both.tokens(both.model, samples)

    def compare(self, path: Path) -> tuple[Fidelity, Accuracy | None]:
        """Judge a result in place of the half that it was made from."""
        fidelity, _ = self._reference.compare(path)
        kept = np.array(agreement(self._before, self._pair.tokens(path, self._samples)))
        found = accuracy("greedy_decoding", np.ones(len(kept)), kept)
        return fidelity, found.model_copy(update={"source": "decoding"})


Yardstick = Reference | Scored | Decoded
"""Whatever `compare` a result with the original."""


def scores(metric: OwnMetric, path: Path) -> np.ndarray:
    """The metric's values of one model file, one dimension.

    Raises:
        InvalidData: there are none, or one is not finite.
    """
    found = np.atleast_1d(np.asarray(metric.score(path), dtype=np.float64))
    if found.ndim != 1 or not found.size or not np.isfinite(found).all():
        raise InvalidData(
            f"the metric {metric.name!r} gave {found.tolist()[:5]} for a model",
            hint="return a finite number, or one for each sample; higher is better",
            code="metric_failed",
        )
    return found


def accuracy(name: str, before: np.ndarray, after: np.ndarray) -> Accuracy:
    """Mean before and after, and the relative drop; its interval where samples are told apart.

    Raises:
        InvalidData: there are not as many values after as before.
    """
    if len(before) != len(after):
        raise InvalidData(
            f"the metric {name!r} gave {len(before)} values, then {len(after)}",
            hint="return one number for the model, or one for each of the same samples",
            code="metric_failed",
        )
    base = abs(float(before.mean())) or 1.0
    drop = float((before - after).mean()) / base
    found = of_mean(np.column_stack([before - after, np.ones(len(before))]))
    if found is None:
        _tell_no_interval(name)
    low, high = (end / base for end in found or (drop * base, drop * base))
    return Accuracy(
        metric=name,
        before=float(before.mean()),
        after=float(after.mean()),
        drop=drop,
        interval=(min(low, drop), max(high, drop)),
        samples=len(before),
        source="own",
    )


def _tell_no_interval(name: str) -> None:
    warnings.warn(
        CompressionWarning(
            f"the metric {name!r} gave one value for the model: its uncertainty is unknown; "
            "return one value per sample, and the report has an interval",
            code="metric_without_interval",
        ),
        stacklevel=4,
    )
