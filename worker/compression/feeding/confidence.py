"""How sure a classifier is of its answers: rightly fed, it is surer, sample by sample."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from worker.compression import graph
from worker.compression.calibration import Feed

_BUDGET_SECONDS = 0.5
FEWEST = 8
"""Samples below which a difference says nothing."""


class Confidence:
    """The entropy of the model's answers, on as many samples as half a second allows."""

    def __init__(self, model: Path, output: str) -> None:
        self._session = graph.session(model)
        self._output = output

    @classmethod
    def open(cls, model: Path, kinds: Mapping[str, str]) -> "Confidence | None":
        """None where no output of rank 2 is a choice among classes."""
        for spec in graph.outputs(model):
            is_class = kinds.get(spec.name) == "class" and spec.dtype.kind == "f"
            if is_class and len(spec.shape) == 2:
                return cls(model, spec.name)
        return None

    def affordable(self, feeds: Sequence[Feed]) -> Sequence[Feed]:
        self._session.run([self._output], feeds[0])
        started = time.perf_counter()
        self._session.run([self._output], feeds[0])
        took = time.perf_counter() - started
        return feeds[: int(_BUDGET_SECONDS / max(took, 1e-6))]

    def entropies(self, feeds: Sequence[Feed]) -> np.ndarray:
        """Entropy of each answer, in nats."""
        found = [_entropy(self._session.run([self._output], feed)[0]) for feed in feeds]
        return np.concatenate(found)


def surer(before: np.ndarray, after: np.ndarray) -> float:
    """Mean gain in nats where the paired t statistic is past 2.5, else 0."""
    gains = before - after
    error = gains.std() / np.sqrt(len(gains))
    gain = float(gains.mean())
    return gain if gain > 2.5 * error else 0.0


def _entropy(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    shares = scores
    if scores.min() < 0 or not np.allclose(scores.sum(-1), 1, atol=1e-2):
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
    return np.asarray(-(shares * np.log(shares + 1e-12)).sum(-1))
