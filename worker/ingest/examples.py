"""The inputs that a module is converted with and checked on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from worker.compression import InvalidData
from worker.ingest.module import ForwardFailed
from worker.ingest.samples import WHOLE, Feed, Samples
from worker.ingest.signature import Given, Plan

Run = Callable[[Feed], Any]
BatchAxes = Mapping[str, int]  # input -> its batch axis


@dataclass(frozen=True)
class Examples:
    """`feeds` are two or more of one shape, `others` of other sizes of the `varying` axes."""

    feeds: tuple[Feed, ...]
    others: tuple[Feed, ...]
    varying: Mapping[str, Mapping[int, str]]
    batched: tuple[BatchAxes, ...]  # ways in which the inputs may be batched, likeliest first
    batch: int  # the batch size of `feeds`
    real: bool


def stacked(feeds: Sequence[Feed], axes: BatchAxes) -> Feed:
    """Feeds joined along their batch axes; inputs without one are the first feed's."""
    return {
        name: np.concatenate([feed[name] for feed in feeds], axis=axes[name])
        if name in axes
        else array
        for name, array in feeds[0].items()
    }


def find(
    planned: Plan, samples: Samples | None, run: Run, weights: np.dtype | None
) -> tuple[Examples, Any]:
    """Read or make the examples; answers them with what forward returned for the first.

    `weights` is the type of the module's parameters.

    Raises:
        InvalidData: forward fails on them (`forward_failed`), with the reason.
    """
    if samples is None or not set(planned.tensors) & set(samples.names):
        feeds = [_random(planned, seed) for seed in (0, 1)]
        made = Examples(tuple(feeds), (), {}, *_batched(feeds[0], ()), real=False)
        return made, _run(run, feeds[0])
    indices = samples.indices()
    if not indices:
        raise InvalidData("the data holds no sample", hint="send at least one sample")
    first: ForwardFailed | None = None
    for read in _readings(planned, samples, weights):
        feed = read(indices[0])
        try:
            result = _run(run, feed)
        except ForwardFailed as error:
            first = first or error
            continue
        feeds = [feed, *(read(index) for index in indices[1:])]
        return _from_data(feeds, planned, samples), result
    raise first or InvalidData("the data holds no sample", hint="send at least one sample")


def _run(run: Run, feed: Feed) -> Any:  # noqa: ANN401 - whatever forward returns
    try:
        return run(feed)
    except ForwardFailed as error:
        shown = ", ".join(
            f"{name}: {array.dtype}{list(array.shape)}" for name, array in feed.items()
        )
        raise ForwardFailed(f"{error.message} (given {shown})", hint=error.hint) from error


def _random(planned: Plan, seed: int) -> Feed:
    rng = np.random.default_rng(seed)
    return {name: _values(planned.given[name], rng) for name in planned.tensors}


def _values(given: Given, rng: np.random.Generator) -> np.ndarray:
    shape, dtype = tuple(given.shape or ()), np.dtype(given.dtype or "float32")
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2, shape).astype(dtype)


def _readings(
    planned: Plan, samples: Samples, weights: np.dtype | None
) -> Iterator[Callable[[int], Feed]]:
    """Ways to take a sample from the data: with or without a batch axis, as typed or cast."""
    for rows in _rows(planned, samples):
        for cast in (None, weights, np.dtype(np.float32)):

            def read(
                index: int, rows: Mapping[str, int] = rows, cast: np.dtype | None = cast
            ) -> Feed:
                feed = {**_given_only(planned, samples), **samples.feed(index, rows)}
                return {
                    name: _typed(feed[name], planned.given.get(name), cast)
                    for name in planned.tensors
                }

            yield read


def _rows(planned: Plan, samples: Samples) -> Iterator[dict[str, int]]:
    """How many rows of each array make a sample: as `inputs` says, else 1, else `x[i]`."""
    for rows in (1, 0):
        found = {}
        for name in planned.tensors:
            if name not in samples.names:
                continue
            said = planned.given.get(name)
            rank = len(samples.arrays[name][0].shape)
            found[name] = WHOLE if samples.whole(name) else rows
            if said is not None and said.shape is not None and not samples.apart:
                found[name] = 0 if rank == len(said.shape) + 1 else (said.shape or [WHOLE])[0]
        yield found
        if samples.apart:
            return


def _given_only(planned: Plan, samples: Samples) -> Feed:
    rng = np.random.default_rng(0)
    return {
        name: _values(planned.given[name], rng)
        for name in planned.tensors
        if name not in samples.names
    }


def _typed(array: np.ndarray, given: Given | None, cast: np.dtype | None) -> np.ndarray:
    if given is not None and given.dtype is not None:
        return array.astype(given.dtype)
    if cast is not None and array.dtype.kind == "f":
        return array.astype(cast)
    if cast is not None and array.dtype.kind in "iu":
        return array.astype(np.int64)
    return array


def _symbols(samples: Samples, planned: Plan) -> dict[str, dict[int, str]]:
    """A name for every axis that varies; axes of equal size in all samples share one."""
    named: dict[tuple[int, ...], str] = {}
    symbols: dict[str, dict[int, str]] = {}
    for name, axes in samples.varying().items():
        if name not in planned.tensors:
            continue
        for axis in axes:
            sizes = tuple(array.shape[axis] for array in samples.arrays[name])
            symbol = named.setdefault(sizes, "batch" if axis == 0 else f"{name}_axis_{axis}")
            symbols.setdefault(name, {})[axis] = symbol
    return symbols


def _from_data(feeds: list[Feed], planned: Plan, samples: Samples) -> Examples:
    shapes = _shapes(feeds[0])
    alike = [feed for feed in feeds if _shapes(feed) == shapes]
    others = [feed for feed in feeds if _shapes(feed) != shapes]
    if len(alike) == 1:
        alike.append({name: _rolled(array) for name, array in alike[0].items()})
    fixed = [name for name in feeds[0] if _serves_all(name, samples)]
    batched, batch = _batched(feeds[0], fixed)
    symbols = _symbols(samples, planned)
    return Examples(tuple(alike), tuple(others), symbols, batched, batch, real=True)


def _serves_all(name: str, samples: Samples) -> bool:
    return not samples.apart and name in samples.names and samples.whole(name)


def _batched(feed: Feed, fixed: Sequence[str]) -> tuple[tuple[BatchAxes, ...], int]:
    """Which axes may count samples, and how many: the first input's first axis tells.

    Other inputs may have the batch first, or second, as the states of LSTM and GRU do.
    """
    first, *others = feed
    if not feed[first].ndim or first in fixed:
        return (), 0
    batch = feed[first].shape[0]
    found: list[BatchAxes] = []
    for order in ((0,), (0, 1), (1, 0)):
        axes = {first: 0}
        for name in others:
            fitting = [axis for axis in order if feed[name].shape[axis : axis + 1] == (batch,)]
            if fitting and name not in fixed:
                axes[name] = fitting[0]
        if axes not in found:
            found.append(axes)
    return tuple(found), batch


def _rolled(array: np.ndarray) -> np.ndarray:
    """Other values of the same kind: each moved by one place."""
    return np.roll(array.ravel(), 1).reshape(array.shape)


def _shapes(feed: Feed) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feed.items()}
