"""What the data says about a module's inputs: names, shapes, types, and a few values.

TorchScript has no declared inputs, so the data is read before there is a model to hold it
against. Headers only, and the few rows that the conversion is checked on; never a pickle.
"""

import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from worker.compression import InvalidData

Feed = dict[str, np.ndarray]

_SAMPLE_KEY = re.compile(r"(\d{1,9})\|(.+)", re.DOTALL)
_LABELS = ("labels", "__labels__")
WHOLE = -1  # as a number of rows: the array as it is
_LOOKED_AT = 256  # samples whose headers are compared
_COMPARED = 16
_MAX_ROW_BYTES = 2**30
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError)


@dataclass(frozen=True)
class Array:
    """One stored array: where it is (an entry of a zip, or None for a .npy) and its header."""

    entry: str | None
    shape: tuple[int, ...]
    dtype: np.dtype
    fortran: bool


@dataclass(frozen=True)
class Samples:
    """The arrays of each input: one for all samples, or one for each sample."""

    path: Path
    arrays: Mapping[str, tuple[Array, ...]]
    apart: bool

    @property
    def names(self) -> list[str]:
        return list(self.arrays)

    def varying(self) -> dict[str, list[int]]:
        """For each input the axes whose size differs between samples."""
        return {
            name: [axis for axis, sizes in enumerate(zip(*_shapes(arrays), strict=True))
                   if len(set(sizes)) > 1]
            for name, arrays in self.arrays.items()
        }  # fmt: skip

    def indices(self) -> list[int]:
        """A few samples that differ: the first ones, and the smallest and largest."""
        if not self.apart:
            rows = max((arrays[0].shape[:1] or (1,))[0] for arrays in self.arrays.values())
            return list(range(min(rows, 3)))
        count = len(next(iter(self.arrays.values())))
        sizes = [
            sum(math.prod(arrays[index].shape) for arrays in self.arrays.values())
            for index in range(count)
        ]
        order = sorted(range(count), key=sizes.__getitem__)
        return list(dict.fromkeys([0, *range(1, min(count, 2)), order[0], order[-1]]))

    def feed(self, index: int, rows: Mapping[str, int]) -> Feed:
        """Sample `index`: a stored array, or `rows` rows of one (0: `x[i]`, WHOLE: all)."""
        return {
            name: _read(self.path, arrays[index], None, 0)
            if self.apart
            else _read(self.path, arrays[0], index, rows[name])
            for name, arrays in self.arrays.items()
            if self.apart or name in rows
        }

    def constant(self, name: str) -> int | float | bool | None:
        """The one number that an input has in every sample; None where it has several."""
        arrays = self.arrays[name]
        values = {
            _read(self.path, array, None, WHOLE).tobytes() for array in arrays[:_COMPARED]
        }
        first = _read(self.path, arrays[0], None, WHOLE)
        if len(values) > 1 or first.size == 0 or (first != first.flat[0]).any():
            return None
        number: int | float | bool = first.flat[0].item()
        return number

    def whole(self, name: str) -> bool:
        """Whether one array of an input serves every sample: its first axis counts none."""
        counts = [arrays[0].shape[0] for arrays in self.arrays.values() if arrays[0].shape]
        shape = self.arrays[name][0].shape
        return not shape or shape[0] < max(counts)


def open_samples(path: Path, *, inputs: list[str]) -> Samples | None:
    """Read the headers of an .npz or .npy; None for a zip without arrays (one of images).

    `inputs` are the names that the module knows.

    Raises:
        InvalidData: neither format, damaged, or with pickled arrays.
    """
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(npy_format.MAGIC_PREFIX):
        with path.open("rb") as file:
            array = _header(file, None, path.stat().st_size)
        return Samples(path, {inputs[0] if inputs else "x": (array,)}, apart=False)
    if not head.startswith(b"PK"):
        raise InvalidData(
            "the data is neither .npz nor .npy",
            hint="write it with numpy.savez, one array for each input",
        )
    return _open_zip(path, inputs)


def _open_zip(path: Path, inputs: list[str]) -> Samples | None:
    found: dict[str, dict[int, Array]] = {}
    apart: set[bool] = set()
    with _broken_is_invalid(), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            index, name = _split(info.filename.removesuffix(".npy"))
            if _is_label(name, inputs) or (index or 0) >= _LOOKED_AT:
                continue
            with archive.open(info) as stream:
                found.setdefault(name, {})[index or 0] = _header(
                    stream, info.filename, info.file_size
                )
            apart.add(index is not None)
    if not found:
        return None
    if len(apart) > 1:
        raise InvalidData(
            "the data mixes arrays for all samples with arrays for single samples",
            hint="use either keys like 'x' or keys like '0|x' for every input",
        )
    arrays = {
        name: tuple(by_index[index] for index in sorted(by_index))
        for name, by_index in found.items()
    }
    _check_complete(arrays, found)
    return Samples(path, arrays, apart=True in apart)


def _check_complete(
    arrays: Mapping[str, tuple[Array, ...]], found: Mapping[str, Mapping[int, Array]]
) -> None:
    counts = {name: len(group) for name, group in arrays.items()}
    for name, by_index in found.items():
        if sorted(by_index) != list(range(len(by_index))) or len(set(counts.values())) > 1:
            raise InvalidData(
                f"the data has not every sample of {name!r}",
                hint="number the samples 0, 1, 2, ... and give each sample every input",
            )
        if len({array.shape and len(array.shape) for array in by_index.values()}) > 1:
            raise InvalidData(
                f"the samples of {name!r} have different numbers of axes",
                hint="give every sample its batch axis",
            )


def _split(key: str) -> tuple[int | None, str]:
    match = _SAMPLE_KEY.fullmatch(key)
    return (int(match[1]), match[2]) if match else (None, key)


def _is_label(name: str, inputs: list[str]) -> bool:
    return name in _LABELS and name not in inputs


def _shapes(arrays: tuple[Array, ...]) -> list[tuple[int, ...]]:
    return [array.shape for array in arrays]


def _header(stream: IO[bytes], entry: str | None, size: int) -> Array:
    key = (entry or "the array").removesuffix(".npy")
    try:
        version = npy_format.read_magic(stream)
        read = npy_format.read_array_header_1_0
        if version != (1, 0):
            read = npy_format.read_array_header_2_0
        shape, fortran, dtype = read(stream)
    except ValueError as error:
        raise InvalidData(
            f"{key!r} is not an array that numpy saved: {str(error).splitlines()[0][:200]}",
            hint="write it with numpy.savez",
        ) from error
    if dtype.hasobject or dtype.names or dtype.subdtype:
        raise InvalidData(
            f"{key!r} is a pickled or structured array, which is never loaded",
            hint="save plain numbers; for samples of different shapes use keys like '0|input'",
        )
    if any(axis < 0 for axis in shape) or math.prod(shape) * dtype.itemsize > size:
        raise InvalidData(f"{key!r} states more values than there are", hint="save it again")
    return Array(entry, shape, dtype, fortran)


def _read(path: Path, array: Array, index: int | None, rows: int) -> np.ndarray:
    """A whole array, or rows of it; only these rows are kept in memory."""
    with _broken_is_invalid(), _stream(path, array) as stream:
        _header(stream, array.entry, 2**62)
        if index is None or rows == WHOLE:
            return _values(stream, array, array.shape)
        if array.fortran and len(array.shape) > 1:
            whole = _values(stream, array, array.shape)
            return whole[index : index + rows].copy() if rows else whole[index].copy()
        row = array.shape[1:]
        _skip(stream, index * max(rows, 1) * math.prod(row) * array.dtype.itemsize)
        return _values(stream, array, (rows, *row) if rows else row)


@contextmanager
def _stream(path: Path, array: Array) -> Iterator[IO[bytes]]:
    if array.entry is None:
        with path.open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, archive.open(array.entry) as stream:
        yield stream


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0:
        piece = len(stream.read(min(count, 2**20)))
        if not piece:
            raise EOFError("the array is shorter than it says")
        count -= piece


def _values(stream: IO[bytes], array: Array, shape: tuple[int, ...]) -> np.ndarray:
    size = math.prod(shape) * array.dtype.itemsize
    if size > _MAX_ROW_BYTES:
        raise InvalidData(f"one sample takes {size:,} bytes", hint="send smaller samples")
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the array is shorter than it says")
    values = np.frombuffer(data, array.dtype)
    values = values.astype(values.dtype.newbyteorder("="))
    return values.reshape(shape, order="F" if array.fortran else "C")


@contextmanager
def _broken_is_invalid() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise InvalidData(
            f"the data file is damaged: {str(error)[:200] or type(error).__name__}",
            hint="write the file again and send all of it",
        ) from error
