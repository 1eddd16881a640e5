"""Rows of a batch as samples of their own, where the model is seen to treat them apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import overload

import numpy as np
import onnxruntime as ort

from worker.compression import graph
from worker.compression.calibration.samples import CalibrationSet, Feed, Picked, rows
from worker.compression.graph import InputSpec

# Feeds that are looked at for one of several rows.
_LOOKED_AT = 64
# Fewer feeds than this are cut, into about as many pieces: for a split into four parts of which
# the smallest should hold enough samples.
_FEW, _PIECES = 32, 64
_CLOSE = 1e-3
_Outputs = Sequence[np.ndarray]


def by_rows(path: Path, samples: CalibrationSet) -> CalibrationSet:
    """The samples, said to be `batched` where that is seen; of few feeds, the pieces.

    Seen means: every output has a row for each row of the inputs, and a row's output is the
    same whatever stands in the other rows. The first axis of boxes, time steps or a state is
    no batch, and what the model normalizes over a batch hangs together.
    """
    if samples.carried or samples.source == "synthetic":
        return samples
    feeds = (samples[index] for index in range(min(len(samples), _LOOKED_AT)))
    feed = next((feed for feed in feeds if rows(feed) > 1), None)
    if feed is None:
        return samples
    running = graph.session(path)
    if not _apart(running, feed):
        return samples
    found = replace(samples, batched=True)
    total = found.size if len(samples) < _FEW else 0
    piece = max(1, total // _PIECES)
    if len(samples) >= _FEW or not _cuts(running, graph.inputs(path), feed, piece):
        return found
    return _cut(found, piece)


def _apart(running: ort.InferenceSession, feed: Feed) -> bool:
    count = rows(feed)
    whole = _run(running, feed)
    if whole is None or not all(_has_rows(made, count) for made in whole):
        return False
    for row in (0, count - 1):
        alone = _run(running, _taken(feed, np.full(count, row)))
        if alone is None or not _same(
            [made[row] for made in whole], [made[row] for made in alone]
        ):
            return False
    return True


def _has_rows(made: object, count: int) -> bool:
    return isinstance(made, np.ndarray) and made.ndim > 0 and made.shape[0] == count


def _cuts(
    running: ort.InferenceSession, specs: Sequence[InputSpec], feed: Feed, piece: int
) -> bool:
    """Whether the model takes so few rows, and answers them as before."""
    if any(spec.shape and isinstance(spec.shape[0], int) for spec in specs):
        return False
    part, whole = _run(running, _taken(feed, np.arange(piece))), _run(running, feed)
    if part is None or whole is None:
        return False
    return _same([made[: len(other)] for made, other in zip(whole, part, strict=True)], part)


def _run(running: ort.InferenceSession, feed: Feed) -> _Outputs | None:
    try:
        made: _Outputs = running.run(None, feed)
    except MemoryError:
        raise
    except Exception:  # whatever ONNX Runtime makes of a batch that nobody sent
        return None
    return made


def _same(ones: _Outputs, others: _Outputs) -> bool:
    return all(_close(one, other) for one, other in zip(ones, others, strict=True))


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind != "f":
        return bool(np.all(one == other))
    one, other = one.astype(np.float64), other.astype(np.float64)
    largest = np.abs(one[np.isfinite(one)]).max(initial=0.0)
    return np.allclose(one, other, rtol=_CLOSE, atol=_CLOSE * largest, equal_nan=True)


def _taken(feed: Mapping[str, np.ndarray], chosen: np.ndarray) -> Feed:
    """The chosen rows of every input that has any."""
    return {name: value[chosen] if value.ndim else value for name, value in feed.items()}


def _cut(samples: CalibrationSet, piece: int) -> CalibrationSet:
    """Each piece of at most so many rows as a sample of its own."""
    places = [
        (index, first)
        for index, feed in enumerate(samples)
        for first in range(0, rows(feed), piece)
    ]
    feeds = _Pieces(samples.feeds, places, piece)
    if samples.labels is None:
        return replace(samples, feeds=feeds)
    named = [{"labels": labels} for labels in samples.labels]
    if any(rows(one) != rows(feed) for one, feed in zip(named, samples, strict=True)):
        return samples
    labels = [one["labels"] for one in _Pieces(named, places, piece)]
    return replace(samples, feeds=feeds, labels=labels)


@dataclass(frozen=True)
class _Pieces(Sequence[Feed]):
    """Feeds cut along their batch: of feed `index` the rows from `first` on."""

    feeds: Sequence[Feed]
    places: Sequence[tuple[int, int]]
    rows: int

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> Picked[Feed]: ...
    def __getitem__(self, index: int | slice) -> Feed | Picked[Feed]:
        if isinstance(index, slice):
            return Picked(self, range(len(self))[index])
        number, first = self.places[index]
        feed = self.feeds[number]
        return _taken(feed, np.arange(first, min(first + self.rows, rows(feed))))
