"""From interleaved timings to a speed-up with its interval and a verdict."""

import math
from dataclasses import dataclass

import numpy as np

from worker.compression.benchmark.measures import LatencyVerdict, Percentiles

LEAST_EFFECT = 1.02
"""Less than 2 % either way is called equal."""

_UNCLEAR = 1.05
"""A control that wanders this far leaves small effects undecided."""

_RESAMPLES = 1000
_SEED = 0


@dataclass(frozen=True)
class Ratio:
    """Ratio of medians, baseline over other: above 1 the other is faster; 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def differs(self) -> bool:
        return self.low > LEAST_EFFECT or self.high < 1 / LEAST_EFFECT

    @property
    def reach(self) -> float:
        """How far the interval reaches from 1, as a factor."""
        return math.exp(max(abs(math.log(self.low)), abs(math.log(self.high))))


def percentiles(milliseconds: np.ndarray) -> Percentiles:
    p50, p90, p99 = np.percentile(milliseconds, (50, 90, 99))
    return Percentiles(p50=float(p50), p90=float(p90), p99=float(p99))


def ratio(baseline: np.ndarray, other: np.ndarray) -> Ratio:
    """Of two arrays (blocks, rounds); blocks and then rounds are drawn again with replacement.

    Sessions are made anew for each block, so drawing blocks shows how much of a difference is
    the luck of where a session's memory lies.
    """
    blocks, rounds = baseline.shape
    rng = np.random.default_rng(_SEED)
    which = rng.integers(blocks, size=(_RESAMPLES, blocks, 1))
    when = rng.integers(rounds, size=(_RESAMPLES, blocks, rounds))
    drawn = [_medians(times, which, when) for times in (baseline, other)]
    low, high = np.quantile(drawn[0] / drawn[1], (0.025, 0.975))
    value = float(np.median(baseline) / np.median(other))
    return Ratio(value, min(float(low), value), max(float(high), value))


def verdict(result: Ratio, control: Ratio, *, calm: bool) -> LatencyVerdict:
    """What the figures bear: `control` is the baseline against itself in the same rounds."""
    if not calm or control.differs:
        return "unreliable"
    least = max(LEAST_EFFECT, control.reach)
    if result.low > least:
        return "faster"
    if result.high < 1 / least:
        return "slower"
    return "unreliable" if control.reach > _UNCLEAR else "equal"


def _medians(times: np.ndarray, which: np.ndarray, when: np.ndarray) -> np.ndarray:
    drawn = times[which, when]
    found: np.ndarray = np.median(drawn.reshape(len(drawn), -1), axis=1)
    return found
