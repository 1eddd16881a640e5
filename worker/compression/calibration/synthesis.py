"""Seeded stand-ins for real samples: enough to run a model, not to prove anything."""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from worker.compression.calibration.samples import CalibrationSet, Feed
from worker.compression.errors import InvalidData
from worker.compression.graph import InputSpec

_TOKENS = 100
_FREE_BY_RANK = {4: 224, 3: 64, 2: 64}
_FREE_TOKENS = 16


def synthetic(
    specs: Sequence[InputSpec],
    *,
    seed: int,
    count: int = 16,
    shapes: Mapping[str, Sequence[int]] = {},
    values: Mapping[str, Any] = {},
) -> CalibrationSet:
    """`count` feeds drawn from `seed`; `shapes` and `values` override what is drawn.

    Floats are standard normal, integers token numbers below 100, masks one; free axes are 1 for
    the batch, else 224 for images and 16 for tokens, and the same wherever a symbol repeats.

    Raises:
        InvalidData: a shape of another rank, for an input that is not there, or larger than
            anything that can be addressed.
    """
    _check(specs, shapes)
    sizes = {spec.name: _shape(spec, specs, shapes) for spec in specs}
    for spec in specs:
        _check_size(spec, sizes[spec.name])
    feeds = []
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        feeds.append(_feed(specs, sizes, values, rng))
    return CalibrationSet(feeds, "synthetic")


def _feed(
    specs: Sequence[InputSpec],
    sizes: Mapping[str, tuple[int, ...]],
    values: Mapping[str, Any],
    rng: np.random.Generator,
) -> Feed:
    return {
        spec.name: np.asarray(values[spec.name], spec.dtype)
        if spec.name in values
        else _draw(spec, sizes[spec.name], rng)
        for spec in specs
    }


def _draw(spec: InputSpec, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    name, dtype = spec.name.lower(), spec.dtype
    if "mask" in name or dtype.kind == "b":
        return np.ones(shape, dtype)
    if dtype.kind == "O":
        return np.full(shape, "text", dtype)
    if dtype.kind not in "iu":
        return rng.standard_normal(shape, np.float32).astype(dtype)
    if "type" in name or "segment" in name:
        return np.zeros(shape, dtype)
    if "position" in name and shape:
        return np.broadcast_to(np.arange(shape[-1], dtype=dtype), shape).copy()
    if dtype.itemsize == 1:
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    return rng.integers(0, _TOKENS, shape).astype(dtype)


def _shape(
    spec: InputSpec, specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]
) -> tuple[int, ...]:
    if spec.name in shapes:
        return tuple(int(size) for size in shapes[spec.name])
    known = _symbols(specs, shapes)
    # A recurrent state holds its layers first, then the batch.
    state = len(spec.shape) == 3 and isinstance(spec.shape[0], int) and spec.shape[0] > 1
    batch = 1 if state else 0
    return tuple(
        axis
        if isinstance(axis, int)
        else known.get(axis or "", 1 if place == batch else _free(spec))
        for place, axis in enumerate(spec.shape)
    )


def _check_size(spec: InputSpec, shape: tuple[int, ...]) -> None:
    """What is merely larger than the memory is told by whoever allocates it."""
    if math.prod(shape) * spec.dtype.itemsize > sys.maxsize:
        raise InvalidData(
            f"one sample of input {spec.name[:100]!r} would have the shape {shape}: "
            "more bytes than can be addressed",
            hint="send calibration data, or smaller sizes in `inputs`",
        )


def _symbols(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """Sizes of symbols, from the shapes that were given."""
    return {
        axis: int(size)
        for spec in specs
        if spec.name in shapes
        for axis, size in zip(spec.shape, shapes[spec.name], strict=False)
        if isinstance(axis, str)
    }


def _free(spec: InputSpec) -> int:
    if spec.dtype.kind in "iu" and len(spec.shape) < 4:
        return _FREE_TOKENS
    if "mask" in spec.name.lower():
        return _FREE_TOKENS
    return _FREE_BY_RANK.get(len(spec.shape), _FREE_TOKENS)


def _check(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]]) -> None:
    by_name = {spec.name: spec for spec in specs}
    for name, shape in shapes.items():
        spec = by_name.get(name)
        if spec is None:
            raise InvalidData(
                f"a shape is given for {name!r}, which is no input of the model",
                hint=f"its inputs are {', '.join(by_name)}",
            )
        if (spec.ranked and len(shape) != len(spec.shape)) or any(size < 1 for size in shape):
            raise InvalidData(
                f"the shape {list(shape)} does not fit input {name!r} of shape {spec.shape}",
                hint="give one positive size for each axis",
            )
