"""Ridge least squares that does not believe its own fit."""

import numpy as np

from worker.compression.channels.moments import RIDGE, Array, Moments, ridged

# Inputs beyond this many are not solved for: the bias alone makes up for what is gone.
_MOST_INPUTS = 4096
# Shares of the mean variance that are tried as ridge, the weakest first.
_RIDGES = (RIDGE, 10 * RIDGE, 100 * RIDGE)


def solve(fit: Moments, check: Moments, matrix: Array, *, centred: bool) -> Array:
    """The matrix that best maps inputs to targets, drawn towards the given one.

    The ridge is the one with the least error on the held-out rows; where every one of them is
    worse than the old matrix with a new bias, the old matrix stays.
    """
    if matrix.shape[1] > _MOST_INPUTS:
        return matrix
    if not check.count:
        return _solved(fit, matrix, RIDGE, centred=centred)
    best, share = _error(check, matrix, centred=centred), None
    for tried in _RIDGES:
        error = _error(check, _solved(fit, matrix, tried, centred=centred), centred=centred)
        if error < best:
            best, share = error, tried
    if share is None:
        return matrix
    return _solved(fit.merged(check), matrix, share, centred=centred)


def _solved(moments: Moments, matrix: Array, share: float, *, centred: bool) -> Array:
    gram, amount = ridged(moments.gram(centred=centred), share)
    if amount <= 0:
        return matrix
    aim = moments.cross(centred=centred) + amount * matrix
    found = np.linalg.solve(gram, aim).astype(np.float64)
    return found if np.isfinite(found).all() else matrix


def _error(moments: Moments, matrix: Array, *, centred: bool) -> float:
    """Squared error on these rows, less what no matrix changes."""
    gram, cross = moments.gram(centred=centred), moments.cross(centred=centred)
    return float(((gram @ matrix) * matrix).sum() - 2 * (matrix * cross).sum())
