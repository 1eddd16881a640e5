"""The .npy format, read in pieces; only the header is interpreted, pickles are refused."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import IO

import numpy as np
from numpy.lib import format as npy_format

from worker.compression.calibration.storage import ArrayFile, StoredArray
from worker.compression.errors import InvalidData, first_line

MAGIC = npy_format.MAGIC_PREFIX
Check = Callable[[np.ndarray, str], np.ndarray]

_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 64 << 20
_MAX_RANK = 16
# numpy hands the header to Python's parser, which has many ways to refuse a hostile one.
_UNPARSED = (ValueError, SyntaxError, TypeError, TokenError, RecursionError, MemoryError)


@dataclass(frozen=True)
class Header:
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype


def read_header(stream: IO[bytes], key: str) -> Header:
    """Read up to the first value.

    Raises:
        InvalidData: no .npy, a pickle, or a structured array.
    """
    try:
        version = npy_format.read_magic(stream)
        read = {
            (1, 0): npy_format.read_array_header_1_0,
            (2, 0): npy_format.read_array_header_2_0,
        }.get(version)
        header = None if read is None else Header(*read(stream))
    except _UNPARSED as error:
        raise InvalidData(
            f"{key!r} is not an array that numpy saved: {first_line(error)}",
            hint="write it with numpy.savez or numpy.save",
        ) from error
    if header is None:
        raise InvalidData(f"{key!r} is a structured array", hint="save one plain array instead")
    _check(header, key)
    return header


def _check(header: Header, key: str) -> None:
    if header.dtype.names or header.dtype.subdtype:
        raise InvalidData(
            f"{key!r} is a structured array", hint="save one plain array for each input"
        )
    if header.dtype.hasobject:
        raise InvalidData(
            f"{key!r} is a pickled array (dtype object), which is never loaded",
            hint="save plain numbers; for samples of different shapes use keys like '0|input'",
        )
    if len(header.shape) > _MAX_RANK or any(size < 0 for size in header.shape):
        raise InvalidData(
            f"{key!r} states the impossible shape {header.shape}"[:300],
            hint="write it with numpy.savez or numpy.save",
        )


def copy(
    stream: IO[bytes], header: Header, key: str, *, into: ArrayFile, check: Check, limit: int
) -> StoredArray:
    """Copy the values in C order, each piece through `check`; `limit` bounds their bytes.

    Raises:
        InvalidData: the values end too early, are too many, or `check` refuses them.
    """
    stated = math.prod(header.shape) * header.dtype.itemsize
    if stated > limit:
        raise InvalidData(
            f"{key!r} states {stated:,} bytes of values, more than there are or may be",
            hint="save it again with numpy; send fewer samples",
        )
    pieces = _pieces(stream, header, key)
    first = check(next(pieces, np.empty(0, header.dtype)), key)
    shape = header.shape[::-1] if header.fortran_order else header.shape
    stored = into.extend(_checked(first, pieces, check, key), first.dtype, shape)
    if not header.fortran_order or len(shape) < 2:
        return stored
    return into.extend(_transposed(stored), stored.dtype, header.shape)


def _checked(
    first: np.ndarray, pieces: Iterator[np.ndarray], check: Check, key: str
) -> Iterator[np.ndarray]:
    yield first
    for piece in pieces:
        yield check(piece, key)


def _pieces(stream: IO[bytes], header: Header, key: str) -> Iterator[np.ndarray]:
    left = math.prod(header.shape)
    while left:
        count = min(left, max(1, _CHUNK_BYTES // max(header.dtype.itemsize, 1)))
        data = stream.read(count * header.dtype.itemsize)
        if len(data) < count * header.dtype.itemsize:
            raise InvalidData(
                f"{key!r} is cut off: {left:,} values are missing", hint="send the whole file"
            )
        yield np.frombuffer(data, header.dtype)
        left -= count


def _transposed(stored: StoredArray) -> Iterator[np.ndarray]:
    """Blocks of rows of the transposed array; each block maps the file anew, to stay small."""
    columns = stored.shape[-1]
    row_bytes = max(1, stored.nbytes // max(columns, 1))
    step = max(1, _BLOCK_BYTES // row_bytes)
    for start in range(0, columns if stored.nbytes else 0, step):
        mapped = np.memmap(
            stored.path, stored.dtype, "r", offset=stored.offset, shape=stored.shape
        )
        yield np.ascontiguousarray(mapped[..., start : start + step].T)
        del mapped


def first_bytes(path: Path, count: int = 8) -> bytes:
    with path.open("rb") as file:
        return file.read(count)
