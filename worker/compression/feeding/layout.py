"""Whether pixels lie where the declared layout says."""

from collections.abc import Sequence

import numpy as np

from worker.compression.graph import InputSpec

_CLEAR = 1.25
"""How much better rows must fit the other way; photos and pages of text give 2 to 15."""
_SMALLEST = 8


def channel_axis(spec: InputSpec) -> int | None:
    """The axis of three colours, where the declared shape of rank 4 has one."""
    if len(spec.shape) != 4:
        return None
    first, last = spec.shape[1] == 3, spec.shape[3] == 3
    return None if first == last else (1 if first else 3)


def misread_layout(values: Sequence[np.ndarray], axis: int) -> float:
    """How many times better rows fit if the memory is read in the other layout; 1 if not.

    In a picture a row is much like the next one. In memory the next row is W values further
    where channels come first, and 3 W where they come last, whatever the shape says: so a
    reshape in place of a transpose shows, for any model.
    """
    found = [_ratio(value, axis) for value in values]
    known = [ratio for ratio in found if ratio is not None]
    if not known:
        return 1.0
    ratio = float(np.median(known))
    return ratio if ratio > _CLEAR else 1.0


def _ratio(value: np.ndarray, axis: int) -> float | None:
    height, width = value.shape[2:4] if axis == 1 else value.shape[1:3]
    if min(height, width) < _SMALLEST:
        return None
    flat = np.ascontiguousarray(value, np.float32).reshape(len(value), -1)
    first, last = _step(flat, width), _step(flat, 3 * width)
    here, other = (first, last) if axis == 1 else (last, first)
    return here / other if other > 0 else None


def _step(flat: np.ndarray, lag: int) -> float:
    """Mean difference of values `lag` places apart in memory."""
    return float(np.abs(flat[:, lag:] - flat[:, :-lag]).mean())
