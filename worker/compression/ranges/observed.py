"""What was seen of one tensor: exact limits and a histogram that grows.

The histogram spans [-2^e, 2^e); when a value falls outside, e grows and pairs of bins are
merged, which loses nothing.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from worker.compression.ranges.methods import Method, entropy, mse, percentile

_HALF_BINS = 4096
# Values of one tensor in one sample that enter its histogram.
_SUBSAMPLE = 16_384


@dataclass
class Observed:
    """What was seen of one tensor over all samples so far."""

    minimum: float = math.inf
    maximum: float = -math.inf
    finite: bool = True
    exponent: int | None = None
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def seen(self) -> bool:
        return self.minimum <= self.maximum

    def update(self, array: np.ndarray, *, histogram: bool) -> None:
        """Take in the values of one sample; infinite ones and NaN only leave a mark."""
        if array.size == 0:
            return
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.finite = False
            array = array[np.isfinite(array)]
            if array.size == 0:
                return
            low, high = float(array.min()), float(array.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        if histogram:
            self._count(array, max(abs(low), abs(high)))

    def range(self, method: Method) -> tuple[float, float]:
        """Lowest and highest value that int8 should represent, never beyond what was seen."""
        if method == "minmax" or self.exponent is None:
            return self.minimum, self.maximum
        edges = np.linspace(-1, 1, 2 * _HALF_BINS + 1) * 2.0**self.exponent
        if method == "percentile":
            low, high = percentile(self.counts, edges)
        else:
            search = mse if method == "mse" else entropy
            low, high = search(self.counts, edges, self.minimum, self.maximum)
        return max(low, self.minimum), min(high, self.maximum)

    def _count(self, array: np.ndarray, largest: float) -> None:
        if largest == 0 and self.exponent is None:
            return  # no scale to begin with; zeros are inside of every range
        self._grow(largest)
        # An odd stride meets every column of a tensor whose width is a power of two.
        stride = max(1, array.size // _SUBSAMPLE) | 1
        values = array.ravel()[::stride].astype(np.float64)
        bins = np.floor(values * (_HALF_BINS / 2.0 ** (self.exponent or 0))) + _HALF_BINS
        places = np.clip(bins, 0, 2 * _HALF_BINS - 1).astype(np.int64)
        self.counts += np.bincount(places, minlength=2 * _HALF_BINS)

    def _grow(self, largest: float) -> None:
        needed = math.frexp(largest)[1] if largest else -1022
        if self.exponent is None:
            self.exponent = needed
            self.counts = np.zeros(2 * _HALF_BINS, np.int64)
        while self.exponent < needed:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, _HALF_BINS // 2)
            self.exponent += 1
