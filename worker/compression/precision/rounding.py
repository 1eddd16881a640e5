"""Weights in 16, 8 and 4 bits, with the scales that lose least (mean squared error)."""

from collections.abc import Iterator

import numpy as np

from worker.compression.precision.encoding import Half, Int4, Int8

_LARGEST_HALF, _SMALLEST_HALF = 65504.0, 2.0**-14
_INT16 = 32767
# Rounding to 11 bits gives 75 dB; below this, small values have lost theirs.
_HALF_DB = 55.0
# Clipping some outliers can cost less than the coarser steps that they force on all others.
_CLIPS_8 = np.linspace(1.0, 0.8, 9)
_CLIPS_4 = np.linspace(8 / 7, 0.65, 12)
_BLOCK = 32
# Bytes of scales, for each byte of codes, that are still worth it.
_SCALE_SHARE = 0.5
# Values rounded at once: a large table is never copied whole.
_CHUNK = 1 << 21


def as_half(array: np.ndarray) -> Half | str:
    """float16, or why not; with power-of-two scales where values are too large or too small."""
    if not np.isfinite(array).all():
        return "it holds infinite values or NaN"
    with np.errstate(over="ignore"):
        plain = Half(array.astype(np.float16))
    if not _lost(array, plain.decoded()):
        return plain
    for axis in range(array.ndim):
        largest = np.abs(array).max(axis=_others(array, axis), keepdims=True)
        scales = np.ldexp(np.float32(1), np.frexp(largest)[1])
        scaled = Half((array / scales).astype(np.float16), scales)
        if not _lost(array, scaled.decoded()):
            return scaled
    return "its values are too far apart for float16"


def as_int16(array: np.ndarray) -> Int8 | str:
    """int16 with a scale for each channel, for values whose sizes float16 cannot span.

    Its steps are even, so that small values lose theirs: refused where a whole channel would.
    """
    if not np.isfinite(array).all():
        return "it holds infinite values or NaN"
    axis = _channel_axis(array, levels=_INT16)
    if axis is None:
        return "its channels are too short to have a scale each"
    largest = np.abs(array).max(axis=_others(array, axis), keepdims=True)
    scales = (largest / _INT16).astype(np.float32)
    made = Int8(_round(array, scales, (-_INT16, _INT16)).astype(np.int16), scales, "int16")
    lost = np.square(array - made.decoded(), dtype=np.float64)
    if _below(np.square(array, dtype=np.float64), lost, _others(array, axis)):
        return "its values are too far apart for 16 bits"
    return made


def as_int8(array: np.ndarray) -> Int8 | str:
    """int8 with one scale for each channel along the axis that fits best, or why not."""
    if not np.isfinite(array).all():
        return "it holds infinite values or NaN"
    axis = _channel_axis(array, levels=127)
    if axis is None:
        return "its channels are too short to have a scale each"
    first = np.moveaxis(array, axis, 0)
    rows = first.reshape(len(first), -1)
    codes = np.empty(rows.shape, np.int8)
    scales = np.empty(len(rows), np.float32)
    for part in _chunks(rows):
        scales[part] = _best_scales(rows[part], _CLIPS_8 / 127, (-127, 127), signed=False)
        codes[part] = _round(rows[part], scales[part, None], (-127, 127))
    shape = [1] * array.ndim
    shape[axis] = -1
    back = np.moveaxis(codes.reshape(first.shape), 0, axis)
    return Int8(np.ascontiguousarray(back), scales.reshape(shape))


def as_int4(array: np.ndarray) -> Int4 | str:
    """4 bits with a scale for every block of 32 along a channel, or why not."""
    if not np.isfinite(array).all():
        return "it holds infinite values or NaN"
    axis = _channel_axis(array, levels=7) or 0
    first = np.moveaxis(array, axis, 0)
    blocks = _blocks(first.reshape(len(first), -1))
    rows = blocks.reshape(-1, blocks.shape[2])
    scales = np.empty(len(rows), np.float32)
    codes = np.empty(rows.shape, np.int8)
    for part in _chunks(rows):
        scales[part] = _best_scales(rows[part], _CLIPS_4 / 8, (-8, 7), signed=True)
    kept = _narrow(scales)
    for part in _chunks(rows):
        codes[part] = _round(rows[part], kept[part, None].astype(np.float32), (-8, 7))
    pairs = (codes + 8).astype(np.uint8).reshape(*blocks.shape[:2], -1, 2)
    return Int4(
        packed=pairs[..., 0] | pairs[..., 1] << 4,
        scales=kept.reshape(*blocks.shape[:2], 1, 1),
        shape=first.shape,
        order=tuple(int(place) for place in np.argsort([axis, *_others(array, axis)])),
    )


def _blocks(rows: np.ndarray) -> np.ndarray:
    """(channels, blocks, values): as equal as can be, even, padded with zeros."""
    count = -(-rows.shape[1] // _BLOCK)
    width = -(-rows.shape[1] // count)
    width += width % 2
    padded = np.zeros((len(rows), count * width), np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded.reshape(len(rows), count, width)


def _narrow(scales: np.ndarray) -> np.ndarray:
    """Scales as float16 where that loses nothing that matters."""
    sizes = np.abs(scales[scales != 0])
    if sizes.size and (sizes.min() < _SMALLEST_HALF or sizes.max() > _LARGEST_HALF):
        return scales
    return scales.astype(np.float16)


def _best_scales(
    rows: np.ndarray, shares: np.ndarray, limits: tuple[int, int], *, signed: bool
) -> np.ndarray:
    """For each row the scale, among shares of its extreme value, that loses least.

    `signed`: the extreme lies at the lower limit, which reaches one further than the upper.
    """
    places = np.abs(rows).argmax(axis=1)
    extremes = rows[np.arange(len(rows)), places]
    extremes = -extremes if signed else np.abs(extremes)
    unit = np.where(extremes == 0, 1, extremes)[:, None]  # the square of 1e30 is no float32
    best = np.zeros(len(rows), np.float32)
    least = np.full(len(rows), np.inf)
    for share in shares:
        scales = (extremes * share).astype(np.float32)
        wide = scales[:, None]
        error = np.square((_round(rows, wide, limits) * wide - rows) / unit).sum(axis=1)
        better = error < least
        best[better], least[better] = scales[better], error[better]
    return best


def _round(rows: np.ndarray, scales: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """Codes, as floats; a row of zeros, or one too small for a scale, is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        codes = np.rint(rows / scales)
    rounded: np.ndarray = np.clip(np.where(np.isfinite(codes), codes, 0), *limits)
    return rounded


def _channel_axis(array: np.ndarray, *, levels: int) -> int | None:
    """The axis along which scales of their own lose least; None where they cost too much."""
    best, least = None, np.inf
    for axis, size in enumerate(array.shape):
        if size * 4 > array.size * _SCALE_SHARE:
            continue
        # Rounding to steps of a scale loses scale^2 / 12 on average (Widrow).
        steps = np.abs(array).max(axis=_others(array, axis)) / levels
        error = float(np.square(steps, dtype=np.float64).mean())
        if error < least:
            best, least = axis, error
    return best


def _lost(array: np.ndarray, rounded: np.ndarray) -> bool:
    """Whether any slice, along any axis, lost more than rounding to 11 bits."""
    signal = np.square(array, dtype=np.float64)
    noise = np.square(array - rounded, dtype=np.float64)
    return any(_below(signal, noise, _others(array, axis)) for axis in range(array.ndim))


def _below(signal: np.ndarray, noise: np.ndarray, axes: tuple[int, ...]) -> bool:
    allowed = signal.sum(axis=axes) * 10 ** (-_HALF_DB / 10)
    return bool(np.any(~(noise.sum(axis=axes) <= allowed)))


def _others(array: np.ndarray, axis: int) -> tuple[int, ...]:
    return tuple(place for place in range(array.ndim) if place != axis)


def _chunks(rows: np.ndarray) -> Iterator[slice]:
    step = max(1, _CHUNK // max(rows.shape[1], 1))
    for start in range(0, len(rows), step):
        yield slice(start, start + step)
