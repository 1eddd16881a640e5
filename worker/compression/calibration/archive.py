"""Zip files from strangers: what they may hold, and how much of it."""

import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from worker.compression.errors import InvalidData

MAX_BYTES = 64 << 30
MAX_ENTRIES = 1_000_000

# LZMA lets a file ask for gigabytes of dictionary; numpy writes neither that nor bzip2.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Not OSError: writing what was unpacked may raise it, too, when the disk is full.
_BROKEN: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
_UNREADABLE: tuple[type[Exception], ...] = (*_BROKEN, ValueError, OSError)
_SPARE_DISK = 256 << 20
_ENCRYPTED = 0x1


def open_zip(path: Path, workdir: Path) -> zipfile.ZipFile:
    """Open and judge the archive by its directory, before any byte is unpacked.

    Raises:
        InvalidData: broken, encrypted, of an unusual compression, or too large unpacked.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise _broken("the data file", error) from error
    try:
        _judge(archive.infolist(), path.stat().st_size, workdir)
    except InvalidData:
        archive.close()
        raise
    return archive


@contextmanager
def entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    """One entry as a stream.

    Raises:
        InvalidData: the entry is corrupt; its checksum is compared at its end.
    """
    try:
        with archive.open(info) as stream:
            yield stream
    except _BROKEN as error:
        raise _broken(f"entry {info.filename!r}", error) from error


def _judge(entries: list[zipfile.ZipInfo], size: int, workdir: Path) -> None:
    names = [info.filename for info in entries]
    if len(set(names)) < len(names):
        raise InvalidData("the zip holds two entries of one name", hint="write it again")
    for info in entries:
        if not 0 <= info.header_offset < size:
            raise _broken(f"entry {info.filename!r}", EOFError("it lies outside the file"))
        if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
            raise InvalidData(
                f"entry {info.filename!r} is encrypted or compressed in an unusual way",
                hint="use numpy.savez or numpy.savez_compressed, or an ordinary zip",
            )
    total = sum(info.file_size for info in entries)
    room = min(MAX_BYTES, max(0, shutil.disk_usage(workdir).free - _SPARE_DISK))
    if total > room or len(entries) > MAX_ENTRIES:
        raise InvalidData(
            f"unpacked, the data takes {total:,} bytes in {len(entries):,} entries; "
            f"there is room for {room:,} bytes",
            hint="send fewer samples: some hundreds are enough",
            code="data_too_large",
        )


def _broken(what: str, error: BaseException) -> InvalidData:
    return InvalidData(
        f"{what} is corrupt or cut off: {str(error)[:200] or type(error).__name__}",
        hint="write the file again and send all of it",
    )
