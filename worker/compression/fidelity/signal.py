"""How much of an output's signal is lost, added up sample by sample in constant memory."""

import math
from dataclasses import dataclass, field

import numpy as np

from worker.compression.fidelity.layout import Layout
from worker.compression.fidelity.measures import WorstChannel

LOST_DB = -100.0
"""Reported where nothing of the signal is left, since JSON knows no infinity."""
HIGHEST_DB = 200.0

# A channel carries signal when its power is not negligible against the strongest one's: scores
# of 0.01 beside boxes of 640 pixels are 96 dB down. Where all values share one bounded scale,
# as after a sigmoid, 40 dB down is as good as off.
_CARRIES, _CARRIES_BOUNDED = 1e-10, 1e-4


@dataclass
class Powers:
    """Sums of squares of signal and noise along one axis."""

    signal: np.ndarray
    noise: np.ndarray


@dataclass
class Signal:
    """Signal and noise of one float output over all samples so far."""

    layout: Layout
    signal: float = 0.0
    noise: float = 0.0
    other: float = 0.0
    product: float = 0.0
    max_abs: float = 0.0
    channels: dict[int, Powers | None] = field(default_factory=dict)

    def add(self, original: np.ndarray, result: np.ndarray, *, places: bool = False) -> None:
        """Add one sample, both finite; `places`: all axes but the last were made one."""
        noise = result - original
        self.signal += _power(original)
        self.noise += _power(noise)
        self.other += _power(result)
        self.product += float(np.einsum("i,i", _flat(original), _flat(result), dtype=float))
        self.max_abs = max(self.max_abs, float(np.abs(noise).max(initial=0.0)))
        axes = self.layout.axes
        if places:
            # Only the last axis is left to look at, as axis 1 of a matrix.
            self._along(original, noise, 1, name=max(axes, default=1))
            return
        for axis in axes:
            self._along(original, noise, axis, name=axis)

    def sqnr_db(self) -> float:
        return decibels(self.signal, self.noise)

    def cosine(self) -> float:
        return cosine(self.product, self.signal, self.other)

    def worst_channel(self) -> WorstChannel | None:
        """The channel that lost most among those that carry signal."""
        found = [
            self._worst(axis, powers)
            for axis, powers in self.channels.items()
            if powers is not None
        ]
        known = [channel for channel in found if channel is not None]
        return min(known, key=_sqnr, default=None)

    def _along(self, original: np.ndarray, noise: np.ndarray, axis: int, *, name: int) -> None:
        if axis >= original.ndim:
            return
        powers = Powers(_power_along(original, axis), _power_along(noise, axis))
        known = self.channels.setdefault(name, powers)
        if known is powers or known is None:
            return
        if len(known.signal) != len(powers.signal):
            # An axis whose length varies with the sample holds places, not channels.
            self.channels[name] = None
            return
        known.signal += powers.signal
        known.noise += powers.noise

    def _worst(self, axis: int, powers: Powers) -> WorstChannel | None:
        least = _CARRIES_BOUNDED if self.layout.bounded else _CARRIES
        carrying = powers.signal > least * powers.signal.max(initial=0.0)
        if not carrying.any():
            return None
        with np.errstate(divide="ignore"):
            ratio = np.where(carrying, powers.noise / np.where(carrying, powers.signal, 1), -1)
        index = int(np.argmax(ratio))
        sqnr = decibels(float(powers.signal[index]), float(powers.noise[index]))
        return WorstChannel(axis=axis, index=index, sqnr_db=sqnr)


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise), within what JSON and people can read."""
    if noise <= 0:
        return HIGHEST_DB
    if signal <= 0:
        return LOST_DB
    return min(max(10 * math.log10(signal / noise), LOST_DB), HIGHEST_DB)


def cosine(product: float, one: float, other: float) -> float:
    """Cosine from sums: two zero vectors point the same way, one alone points nowhere."""
    if one <= 0 or other <= 0:
        return 1.0 if one == other else 0.0
    return min(1.0, max(-1.0, product / math.sqrt(one * other)))


def _sqnr(channel: WorstChannel) -> float:
    return HIGHEST_DB if channel.sqnr_db is None else channel.sqnr_db


def _flat(array: np.ndarray) -> np.ndarray:
    return array.reshape(-1)


def _power(array: np.ndarray) -> float:
    flat = _flat(array)
    # einsum converts in small buffers: no copy of the whole array in float64.
    return float(np.einsum("i,i", flat, flat, dtype=float))


def _power_along(array: np.ndarray, axis: int) -> np.ndarray:
    found: np.ndarray
    if axis == array.ndim - 1:
        rows = array.reshape(-1, array.shape[axis])
        found = np.einsum("ac,ac->c", rows, rows, dtype=float)
    else:
        parts = array.reshape(math.prod(array.shape[:axis]), array.shape[axis], -1)
        found = np.einsum("acb,acb->c", parts, parts, dtype=float)
    return found
