"""Rounding that lets the weights not yet rounded make up for those that are.

GPTQ (Frantar et al., 2022) as Babai's nearest plane (Chen et al., 2025): with H = E[x x'] =
L L', the last input is rounded first, and every other one takes over its share, L[j, i] /
L[i, i], of the errors behind it. One Cholesky factor, no inverse.
"""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# Share of the mean variance that the Gram is raised by, so that it can be factored.
_DAMPING = 0.01
# Inputs whose errors reach each other at once; the rest get them in one product.
_BLOCK = 128
# Inputs above which a Gram is worked on in place, this many columns at a time.
_WIDE = 512
# Shares of the largest weight that are tried as the end of the range.
_CLIPS = np.linspace(1.0, 0.7, 16)


def compensated(
    weight: Array,
    scale: Array,
    gram: Array,
    *,
    limits: tuple[int, int],
    noise: Array | None = None,
) -> npt.NDArray[np.int8]:
    """Integers q that keep (scale * q)' (x + e) close to weight' x.

    `weight` is (groups, inputs, outputs), `scale` (groups, outputs), `gram` (groups, inputs,
    inputs), `noise` E[e^2] as (groups, inputs) of errors that do not depend on x or on each
    other, as those of rounded activations. Exact zeros stay zero. The inputs of largest
    variance are rounded first, as long as there are others to make up for them. The Gram is
    used up: of a wide layer, a copy would not fit into memory.
    """
    places = np.arange(gram.shape[1])
    mean = gram[:, places, places].mean(axis=1)
    gram[:, places, places] += np.where(mean > 0, _DAMPING * mean, 1.0)[:, None]
    if noise is not None:
        gram[:, places, places] += noise
    order = np.argsort(gram[:, places, places], axis=1, kind="stable")
    _sort(gram, order)
    columns = order[:, :, None]
    wanted = np.take_along_axis(weight, columns, 1)
    shares = _factored(gram)
    zero = wanted == 0
    if noise is not None:
        wanted -= _amplified(shares, np.take_along_axis(noise, order, 1)[:, :, None] * wanted)
    rounded = _nearest_plane(wanted, scale, shares, zero, limits)
    result = np.empty_like(rounded)
    np.put_along_axis(result, np.broadcast_to(columns, rounded.shape), rounded, 1)
    return result


def _amplified(shares: Array, noisy: Array) -> Array:
    """H^-1 (N W): by how much the best weights for noisy inputs are smaller, of H = L L'.

    What passes the noise on and little of the signal is taken back (Wiener's filter).
    """
    inputs = shares.shape[1]
    starts = range(0, inputs, _BLOCK)
    for start in starts:  # L z = N W
        part, end = slice(start, start + _BLOCK), min(start + _BLOCK, inputs)
        noisy[:, part] -= shares[:, part, :start] @ noisy[:, :start]
        noisy[:, part] = np.linalg.solve(np.tril(shares[:, part, start:end]), noisy[:, part])
    for start in reversed(starts):  # L' v = z
        part, end = slice(start, start + _BLOCK), min(start + _BLOCK, inputs)
        noisy[:, part] -= np.swapaxes(shares[:, end:, part], 1, 2) @ noisy[:, end:]
        upper = np.swapaxes(np.tril(shares[:, part, start:end]), 1, 2)
        noisy[:, part] = np.linalg.solve(upper, noisy[:, part])
    return noisy


def _sort(gram: Array, order: npt.NDArray[np.intp]) -> None:
    """Bring rows and columns of each Gram into an order, in place."""
    for matrix, places in zip(gram, order, strict=True):
        for start in range(0, len(matrix), _WIDE):
            part = slice(start, start + _WIDE)
            matrix[part] = matrix[part][:, places]
        for start in range(0, len(matrix), _WIDE):
            part = slice(start, start + _WIDE)
            matrix[:, part] = matrix[places, part]


def _factored(gram: Array) -> Array:
    """L with L L' = gram, in the place of the Gram, whose upper triangle keeps what it had."""
    inputs = gram.shape[1]
    if inputs <= _WIDE:
        return np.asarray(np.linalg.cholesky(gram), np.float64)
    for start in range(0, inputs, _WIDE):
        end = min(start + _WIDE, inputs)
        panel = gram[:, start:, start:end]
        panel -= gram[:, start:, :start] @ np.swapaxes(gram[:, start:end, :start], 1, 2)
        corner = np.linalg.cholesky(panel[:, : end - start])
        panel[:, : end - start] = corner
        panel[:, end - start :] @= np.swapaxes(np.linalg.inv(corner), 1, 2)
    return gram


def _nearest_plane(
    weight: Array,
    scale: Array,
    shares: Array,
    zero: npt.NDArray[np.bool_],
    limits: tuple[int, int],
) -> npt.NDArray[np.int8]:
    """Round from the last input to the first, each making up for those before it.

    `shares` is the factor L, which is used up.
    """
    places = np.arange(shares.shape[1])
    shares /= shares[:, places, places].copy()[:, None, :]
    errors = np.zeros_like(weight)
    rounded = np.zeros(weight.shape, np.int8)
    inputs = weight.shape[1]
    for end in range(inputs, 0, -_BLOCK):
        start = max(0, end - _BLOCK)
        later = np.swapaxes(shares[:, end:, start:end], 1, 2) @ errors[:, end:]
        for i in reversed(range(start, end)):
            near = shares[:, None, i + 1 : end, i] @ errors[:, i + 1 : end]
            target = weight[:, i] + later[:, i - start] + near[:, 0]
            steps = np.clip(np.rint(target / scale), *limits)
            steps[zero[:, i]] = 0
            rounded[:, i] = steps
            errors[:, i] = weight[:, i] - scale * steps
    return rounded


def clipped_scales(weight: Array, energy: Array, largest: int) -> Array:
    """Scales (groups, outputs) of least expected error after rounding to nearest.

    `energy` is E[x^2] as (groups, inputs). Clipping the few largest weights makes the steps of
    all others finer.
    """
    whole = np.abs(weight).max(axis=1)
    whole = np.where(whole > 0, whole, 1.0)
    best = whole / largest
    least = np.full(best.shape, np.inf)
    for share in _CLIPS:
        scale = share * whole / largest
        steps = np.clip(np.rint(weight / scale[:, None]), -largest, largest)
        error = np.einsum("gi,gio->go", energy, (weight - scale[:, None] * steps) ** 2)
        better = error < least
        best, least = np.where(better, scale, best), np.minimum(error, least)
    return best
