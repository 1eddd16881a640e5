"""From stored arrays to feeds: which part of an input's array is sample i (DESIGN.md 3.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import numpy as np

from worker.compression.calibration.samples import Feed, Picked
from worker.compression.calibration.storage import StoredArray
from worker.compression.errors import InvalidData
from worker.compression.graph import InputSpec


class Column(Protocol):
    """One input over all samples."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> np.ndarray: ...
    @property
    def repeatable(self) -> bool:
        """Whether one value may serve every sample."""


@dataclass(frozen=True)
class Rows:
    """Sample i is `batch` rows of an array whose first axis is the batch."""

    array: StoredArray
    batch: int
    repeatable: bool

    def __len__(self) -> int:
        return self.array.shape[0] // self.batch

    def __getitem__(self, index: int) -> np.ndarray:
        return self.array.rows(index * self.batch, (index + 1) * self.batch)


@dataclass(frozen=True)
class Stack:
    """Sample i is `x[i]`."""

    array: StoredArray
    repeatable: bool = True

    def __len__(self) -> int:
        return self.array.shape[0]

    def __getitem__(self, index: int) -> np.ndarray:
        return self.array.row(index)


@dataclass(frozen=True)
class Apart:
    """Every sample has an array of its own."""

    arrays: Sequence[StoredArray]
    repeatable: bool = False

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.arrays[index].read()


@dataclass(frozen=True)
class Feeds(Sequence[Feed]):
    """One feed per sample, from a column per input."""

    columns: Mapping[str, Column]
    text: frozenset[str]
    size: int

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> Picked[Feed]: ...
    def __getitem__(self, index: int | slice) -> Feed | Picked[Feed]:
        if isinstance(index, slice):
            return Picked(self, range(self.size)[index])
        if not 0 <= index < self.size:
            raise IndexError(index)
        return {name: self._value(name, column, index) for name, column in self.columns.items()}

    def _value(self, name: str, column: Column, index: int) -> np.ndarray:
        value = column[0 if len(column) == 1 else index]
        return value.astype(object) if name in self.text else value


def column(array: StoredArray, spec: InputSpec) -> Column:
    """The column of an input from one array for all samples.

    Raises:
        InvalidData: a rank or a size that does not fit the input.
    """
    rank, wanted = len(array.shape), len(spec.shape)
    if not spec.ranked:
        return Rows(array, 1, repeatable=False) if rank else Apart([array], repeatable=True)
    if rank == wanted == 0:
        return Apart([array], repeatable=True)
    if rank == wanted + 1 and fits(array.shape[1:], spec):
        return Stack(array)
    if rank != wanted or not fits((spec_batch(spec), *array.shape[1:]), spec):
        raise _misfit(spec, array.shape)
    batch = spec_batch(spec)
    if array.shape[0] < batch:
        raise InvalidData(
            f"{spec.name!r} has {array.shape[0]} rows, but one sample takes {batch}",
            hint=f"the model's batch is fixed at {batch}: send a multiple of it",
        )
    return Rows(array, batch, repeatable=isinstance(spec.shape[0], int))


def apart(arrays: Mapping[str, StoredArray], spec: InputSpec) -> Column:
    """The column of an input whose samples are stored under keys of their own."""
    for key, array in arrays.items():
        if spec.ranked and (len(array.shape) != len(spec.shape) or not fits(array.shape, spec)):
            raise _misfit(spec, array.shape, key=key, whole=True)
    return Apart(list(arrays.values()))


def feeds(columns: Mapping[str, Column], specs: Sequence[InputSpec]) -> Feeds:
    """Feeds, once the columns agree on how many samples there are.

    Raises:
        InvalidData: they disagree, or there is none.
    """
    sizes = {name: len(column) for name, column in columns.items()}
    count = max(sizes.values())
    for name, size in sizes.items():
        if size != count and not (size == 1 and columns[name].repeatable):
            counts = ", ".join(f"{name!r} has {size}" for name, size in sizes.items())
            raise InvalidData(
                f"the inputs hold different numbers of samples: {counts}",
                hint="send as many samples of every input",
            )
    if not count:
        raise InvalidData("the data holds no sample", hint="send at least 32 samples")
    text = frozenset(spec.name for spec in specs if spec.dtype == np.dtype(object))
    return Feeds(columns, text, count)


def spec_batch(spec: InputSpec) -> int:
    """Rows of one sample: the declared batch, 1 where it is free."""
    first = spec.shape[0] if spec.shape else None
    return first if isinstance(first, int) and first > 0 else 1


def fits(shape: Sequence[int], spec: InputSpec) -> bool:
    return len(shape) == len(spec.shape) and all(
        not isinstance(axis, int) or axis == size
        for size, axis in zip(shape, spec.shape, strict=True)
    )


def _misfit(
    spec: InputSpec, shape: Sequence[int], *, key: str | None = None, whole: bool = False
) -> InvalidData:
    wanted = "[" + ", ".join("?" if axis is None else str(axis) for axis in spec.shape) + "]"
    rank = len(spec.shape)
    if len(shape) == rank - 1:
        hint = f"a batch axis is missing: save x[None]; the input has {rank} axes"
    elif whole:
        hint = "each sample is a whole feed, with its batch axis"
    else:
        hint = "send samples along the first axis, or, for samples of different shapes, keys"
        hint += f" like '0|{spec.name}'"
    return InvalidData(
        f"{key or spec.name!r} has shape {list(shape)}, but the input takes {wanted}", hint=hint
    )
