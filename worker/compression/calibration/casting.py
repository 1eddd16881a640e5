"""Values into the type that an input wants, or an error: never a silent loss."""

import numpy as np

from worker.compression.errors import InvalidData

_PLAIN = "biuf"
_TEXT = "US"


def cast(values: np.ndarray, dtype: np.dtype, key: str) -> np.ndarray:
    """The same values as `dtype`; a float may lose digits, nothing else may be lost.

    Raises:
        InvalidData: NaN or infinity, a value that `dtype` cannot hold, or no number.
    """
    if dtype == np.dtype(object):
        return _text(values, key)
    if values.dtype.kind not in _PLAIN and values.dtype != dtype:
        raise InvalidData(
            f"{key!r} holds {values.dtype}, but the input takes {dtype}",
            hint=f"save it as {dtype}",
        )
    _finite(values, key)
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        turned = values.astype(dtype)
        kept = _kept(values, turned)
    if not kept.all():
        lost = values.reshape(-1)[int(np.argmin(kept.reshape(-1)))]
        raise InvalidData(
            f"{key!r} is {values.dtype}, but the input takes {dtype}, which cannot hold {lost}",
            hint=f"save it as {dtype}, with values that fit",
        )
    return turned


def label(values: np.ndarray, key: str) -> np.ndarray:
    """Labels as they are, once they are numbers."""
    if values.dtype.kind not in _PLAIN:
        raise InvalidData(
            f"{key!r} holds {values.dtype}; labels must be integers or floats",
            hint="save class numbers as int64, or values as float32",
        )
    _finite(values, key)
    return values


def _kept(values: np.ndarray, turned: np.ndarray) -> np.ndarray:
    kept: np.ndarray
    if values.dtype.kind != "f":
        kept = turned == values
    elif turned.dtype.kind in "biu":
        # A float beyond the integer's range may turn into any integer: compare as floats.
        low, high = _limits(turned.dtype)
        kept = (values >= low) & (values <= high) & (turned.astype(values.dtype) == values)
    else:
        kept = np.isfinite(turned.astype(np.float32))
    return kept


def _limits(dtype: np.dtype) -> tuple[float, float]:
    if dtype.kind == "b":
        return 0.0, 1.0
    info = np.iinfo(dtype)
    # The largest int64 is no float: the next float is already one too many.
    return float(info.min), float(
        np.nextafter(float(info.max), 0) if info.bits == 64 else info.max
    )


def _finite(values: np.ndarray, key: str) -> None:
    if values.dtype.kind in "biu" or np.isfinite(values).all():
        return
    raise InvalidData(
        f"{key!r} holds NaN or infinite values",
        hint="remove these samples; write a mask's -inf as a large negative number",
    )


def _text(values: np.ndarray, key: str) -> np.ndarray:
    if values.dtype.kind not in _TEXT:
        raise InvalidData(
            f"{key!r} holds {values.dtype}, but the input takes text",
            hint="save it as a numpy array of str (dtype <U...)",
        )
    return values
