"""Feeds, one per sample, read when they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar, overload

import numpy as np

Feed = dict[str, np.ndarray]
Source = Literal["calibration", "evaluation", "synthetic"]
T = TypeVar("T")


def rows(feed: Mapping[str, np.ndarray]) -> int:
    """Rows of the batch of a feed; 1 where its inputs have no first axis in common."""
    found = {value.shape[0] for value in feed.values() if value.ndim}
    return found.pop() if len(found) == 1 else 1


@dataclass(frozen=True)
class Picked(Sequence[T]):
    """A view of chosen items, in the order chosen."""

    items: Sequence[T]
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "Picked[T]": ...
    def __getitem__(self, index: int | slice) -> "T | Picked[T]":
        if isinstance(index, slice):
            return Picked(self.items, self.indices[index])
        return self.items[self.indices[index]]


@dataclass(frozen=True)
class CalibrationSet(Sequence[Feed]):
    """Representative inputs: item i is a whole feed, batch axis included.

    `labels`, where there are any, has one array per sample. `starts` are the samples before
    which the order is interrupted; the first begins a sequence in any case. `carried` says by
    input which output of the sample before a model with a state takes over. `batched`: the
    model was seen to treat the rows of a feed apart, so each is a sample of its own.
    """

    feeds: Sequence[Feed]
    source: Source
    labels: Sequence[np.ndarray] | None = None
    starts: frozenset[int] = frozenset()
    carried: Mapping[str, str] = field(default_factory=dict)
    batched: bool = False

    def __len__(self) -> int:
        return len(self.feeds)

    def __iter__(self) -> Iterator[Feed]:
        return (self.feeds[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> "CalibrationSet": ...
    def __getitem__(self, index: int | slice) -> "Feed | CalibrationSet":
        if isinstance(index, slice):
            return self.take(range(len(self))[index])
        return self.feeds[index]

    def take(self, indices: Sequence[int]) -> "CalibrationSet":
        """The chosen samples, as a view."""
        labels = None if self.labels is None else Picked(self.labels, indices)
        starts = frozenset(
            place
            for place, index in enumerate(indices)
            if index in self.starts or (place and index != indices[place - 1] + 1)
        )
        feeds = Picked(self.feeds, indices)
        return CalibrationSet(feeds, self.source, labels, starts, self.carried, self.batched)

    @property
    def size(self) -> int:
        """Samples that there are: rows, where feeds hold several that are apart."""
        return sum(map(rows, self)) if self.batched else len(self)

    @property
    def sequences(self) -> list[range]:
        """Positions of the samples of each sequence; of one sample each without a state."""
        if not self.carried:
            return [range(index, index + 1) for index in range(len(self))]
        firsts = sorted({0, *self.starts})
        return [
            range(first, last)
            for first, last in zip(firsts, [*firsts[1:], len(self)], strict=True)
        ]
