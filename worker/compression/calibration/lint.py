"""What is odd about samples that fit: repeats, and values that never change."""

import hashlib
import warnings

import numpy as np

from worker.compression.calibration.samples import CalibrationSet, Feed
from worker.compression.errors import CompressionWarning

_STRAY = 0.05
"""Share of blank samples that real data may have: a silence, a white page."""
_LOOKED_AT = 256
"""Samples looked at: enough to see a fault of the whole file, and bounded in time."""


def lint(samples: CalibrationSet) -> None:
    """Warn of constant and of duplicate samples."""
    seen: set[bytes] = set()
    constant = duplicate = 0
    count = min(len(samples), _LOOKED_AT)
    for index in range(count):
        feed = samples[index]
        mark = _digest(feed)
        duplicate += mark in seen
        seen.add(mark)
        constant += _is_constant(feed)
    if constant > _STRAY * count:
        _warn("constant_samples", constant, samples, "hold one value only, such as all zeros")
    if duplicate:
        _warn("duplicate_samples", duplicate, samples, "repeat an earlier sample")


def overlap(one: CalibrationSet, other: CalibrationSet) -> int:
    """How many samples of `other` are in `one`."""
    seen = {_digest(one[index]) for index in range(min(len(one), _LOOKED_AT))}
    return sum(_digest(other[index]) in seen for index in range(min(len(other), _LOOKED_AT)))


def _digest(feed: Feed) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(feed):
        value = feed[name]
        digest.update(f"{name}|{value.dtype}|{value.shape}|".encode())
        digest.update(_bytes(value))
    return digest.digest()


def _bytes(value: np.ndarray) -> bytes:
    if value.dtype.kind == "O":
        return repr(value.tolist()).encode()
    return np.ascontiguousarray(value).tobytes()


def _is_constant(feed: Feed) -> bool:
    """Whether no input of more than one value varies; single values cannot."""
    wide = [value for value in feed.values() if value.size > 1 and value.dtype.kind != "O"]
    return bool(wide) and all(bool((value == value.flat[0]).all()) for value in wide)


def _warn(code: str, count: int, samples: CalibrationSet, what: str) -> None:
    warnings.warn(
        CompressionWarning(
            f"{count} of {len(samples)} {samples.source} samples {what}", code=code
        ),
        stacklevel=4,
    )
