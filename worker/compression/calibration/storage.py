"""Arrays on disk: appended to one file, read back a few rows at a time.

Plain reads, not memory maps: mapped pages count as the process's own, so its high-water mark
would grow with every sample that was looked at.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np


@dataclass(frozen=True)
class StoredArray:
    """A C-ordered array in a file, `offset` bytes from its start."""

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        return self._part(0, self.shape)

    def row(self, index: int) -> np.ndarray:
        """`x[index]`."""
        return self._part(index * self._row_bytes, self.shape[1:])

    def rows(self, start: int, stop: int) -> np.ndarray:
        """`x[start:stop]`, for 0 <= start <= stop <= rows."""
        return self._part(start * self._row_bytes, (stop - start, *self.shape[1:]))

    @property
    def _row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def _part(self, skip: int, shape: tuple[int, ...]) -> np.ndarray:
        buffer = bytearray(math.prod(shape) * self.dtype.itemsize)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.offset + skip)
            _fill(file, buffer)
        return np.frombuffer(buffer, self.dtype).reshape(shape)


def _fill(file: BinaryIO, buffer: bytearray) -> None:
    """Read until the buffer is full: one read call hands over at most 2 GB."""
    view, done = memoryview(buffer), 0
    while done < len(buffer):
        count = file.readinto(view[done:])  # type: ignore[attr-defined]  # raw files have it
        if not count:
            raise EOFError(f"{file.name} ends too early")
        done += count


class ArrayFile:
    """A file that arrays are appended to; open it with `with`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, array: np.ndarray) -> StoredArray:
        return self.extend([array], array.dtype, array.shape)

    def extend(
        self, chunks: Iterable[np.ndarray], dtype: np.dtype, shape: tuple[int, ...]
    ) -> StoredArray:
        """Append an array that comes in pieces, in C order."""
        if self._file is None:
            raise ValueError("the file is not open")
        offset = self._file.tell()
        for chunk in chunks:
            # Bytes, because numpy exports no buffer for types of its extensions (bfloat16).
            self._file.write(np.ascontiguousarray(chunk).reshape(-1).view(np.uint8).data)
        self._file.flush()
        return StoredArray(self._path, offset, dtype, shape)
