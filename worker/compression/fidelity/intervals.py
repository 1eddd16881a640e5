"""95 % intervals: what a finite number of samples can and cannot show."""

import math
from collections.abc import Callable

import numpy as np

Interval = tuple[float, float]

_Z = 1.959964
_RESAMPLES = 2000
_SEED = 0


def wilson(share: float, count: int) -> Interval:
    """Interval of a share seen in `count` independent trials (Wilson 1927).

    Of 64 trials without an event it says at most 5.7 %: never zero.
    """
    if count <= 0:
        return 0.0, 1.0
    square = _Z * _Z
    center = (share + square / (2 * count)) / (1 + square / count)
    half = _Z * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    half /= 1 + square / count
    return max(0.0, min(share, center - half)), min(1.0, max(share, center + half))


def paired(lost: float, gained: float, count: int) -> Interval:
    """Interval of the difference of two shares on the same trials (Agresti and Min 2005).

    `lost` and `gained` count the trials that only one of the two got right.
    """
    total, fewer, more = count + 2.0, gained + 0.5, lost + 0.5
    difference = (more - fewer) / total
    variance = (more + fewer - (more - fewer) ** 2 / total) / total**2
    half = _Z * math.sqrt(max(variance, 0.0))
    return max(-1.0, difference - half), min(1.0, difference + half)


def bootstrap(rows: np.ndarray, statistic: Callable[[np.ndarray], float]) -> Interval:
    """Percentile bootstrap over rows, seeded; `statistic` takes sums over rows (fields)."""
    rng = np.random.default_rng(_SEED)
    count = len(rows)
    weights = rng.multinomial(count, np.full(count, 1 / count), _RESAMPLES)
    found = np.array([statistic(sums) for sums in weights @ rows])
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)
