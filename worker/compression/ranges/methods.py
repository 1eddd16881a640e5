"""From a histogram to the range that 256 levels should span, zero always in it."""

from typing import Literal

import numpy as np

Method = Literal["minmax", "percentile", "entropy", "mse"]

# Share of the values that `percentile` keeps inside of the range.
_KEPT = 0.9999
_LEVELS = 255
_THRESHOLDS = 100
# Ranges narrower than this share of what was seen are not considered.
_NARROWEST = 0.1


def percentile(counts: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """The range that leaves 0.01 % of the values outside, half of them on either side."""
    upto = np.cumsum(counts) / counts.sum()
    outside = (1 - _KEPT) / 2
    low = edges[np.searchsorted(upto, outside, side="right")]
    high = edges[np.searchsorted(upto, 1 - outside) + 1]
    return float(low), float(high)


def mse(counts: np.ndarray, edges: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The range [a, b] of least squared error, each end searched on its own.

    What is clipped is summed from the histogram; inside, rounding adds a twelfth of a squared
    step, but to zeros, which are represented exactly (Banner et al. 2018, made asymmetric).
    """
    centres = (edges[:-1] + edges[1:]) / 2
    counts = counts.astype(np.float64)
    low, high = min(low, 0.0), max(high, 0.0)
    shares = np.linspace(_NARROWEST, 1, _THRESHOLDS)
    lows, highs = low * shares if low else np.zeros(1), high * shares if high else np.zeros(1)
    rounded = counts.sum() - counts[_zero_bin(edges)]
    below = _clipped(counts[::-1], -centres[::-1], -lows)
    clipped = below[:, None] + _clipped(counts, centres, highs)
    step = (highs - lows[:, None]) / _LEVELS
    error = clipped + rounded * np.square(step) / 12
    # Of equal errors the widest range: the last of each.
    flat = error.size - 1 - int(np.argmin(error.ravel()[::-1]))
    row, column = np.unravel_index(flat, error.shape)
    return float(lows[row]), float(highs[column])


def _clipped(counts: np.ndarray, centres: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Squared error of moving all values above each limit down to it; `centres` ascend."""
    moments = [
        np.append(np.cumsum((counts * centres**power)[::-1])[::-1], 0) for power in (0, 1, 2)
    ]
    above = np.searchsorted(centres, limits, side="right")
    zeroth, first, second = (moment[above] for moment in moments)
    return np.asarray(np.maximum(second - 2 * limits * first + limits**2 * zeroth, 0))


def entropy(
    counts: np.ndarray, edges: np.ndarray, low: float, high: float
) -> tuple[float, float]:
    """The range whose 255 levels lose the least information about the distribution.

    Kullback-Leibler divergence as in TensorRT's calibrator (Migacz 2017): one limit T for both
    signs, cut at what was seen. Zeros, which are exact in every range, are left out: after a
    Relu they would outweigh all else.
    """
    counts = counts.astype(np.float64)
    counts[_zero_bin(edges)] = 0
    low, high = min(low, 0.0), max(high, 0.0)
    largest = max(-low, high)
    limits = largest * np.linspace(_NARROWEST, 1, _THRESHOLDS)
    losses = [
        _divergence(counts, edges, max(low, -limit), min(high, limit)) for limit in limits
    ]
    # The widest of equal ones.
    best = limits[len(losses) - 1 - int(np.argmin(losses[::-1]))]
    return float(max(low, -best)), float(min(high, best))


def _divergence(counts: np.ndarray, edges: np.ndarray, low: float, high: float) -> float:
    """Divergence of the levels of [low, high] from the distribution clipped to it."""
    first = int(np.searchsorted(edges, low, side="right")) - 1
    last = int(np.searchsorted(edges, high, side="left"))
    inside = counts[first:last]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    total = clipped.sum()
    if total == 0:
        return 0.0
    level = np.arange(len(inside)) * _LEVELS // len(inside)
    occupied = inside > 0
    mass = np.bincount(level, inside, _LEVELS)
    spread = np.bincount(level, occupied, _LEVELS)
    share = np.divide(mass, spread, out=np.zeros_like(mass), where=spread > 0)
    levels = np.where(occupied, share[level], 0)
    return _kullback_leibler(clipped / total, levels / max(levels.sum(), 1e-30))


def _kullback_leibler(expected: np.ndarray, found: np.ndarray) -> float:
    """Divergence with the smoothing of 1e-4 of a bin where only one of both has mass."""
    here = expected > 0
    return float(
        np.sum(expected[here] * np.log(expected[here] / np.maximum(found[here], 1e-10)))
    )


def _zero_bin(edges: np.ndarray) -> int:
    return int(np.searchsorted(edges, 0.0, side="right")) - 1
