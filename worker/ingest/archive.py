"""The structure of a zip: read by hand, entry by entry, and held against strict rules.

`zipfile` reads the whole central directory, as large as the file claims it to be, before it
answers; this reader needs the same memory for every file, so that the web process can use it.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from worker.compression import UnsupportedFormat
from worker.ingest.refusals import refusal

STORED, DEFLATED = 0, 8
MAX_ENTRIES = 20_000
MAX_NAME = 1_024
FREE_BYTES = 64 * 2**20  # below this any ratio is harmless
MAX_RATIO = 50
_TAIL = 22 + 65_535  # end record with the longest comment
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_ENCRYPTED, _STREAMED, _UTF8 = 0x1, 0x8, 0x800
_KNOWN_FLAGS = 0x6 | _STREAMED | _UTF8  # 0x6: how hard deflate tried
_NEWEST_VERSION = 63
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF  # the value stands in a zip64 record


@dataclass(frozen=True)
class Entry:
    """One file in the zip; `start` is where its bytes begin, sizes are in bytes."""

    name: str
    method: int
    size: int
    packed: int
    start: int

    @property
    def folder(self) -> bool:
        return self.name.endswith("/")


@dataclass(frozen=True)
class _Directory:
    """Where the central directory lies."""

    count: int
    start: int
    end: int


def unsafe(message: str) -> UnsupportedFormat:
    return refusal("unsafe_archive", message)


def entries(path: Path) -> Iterator[Entry]:
    """Yield the entries of a zip, each checked; the sums are checked after the last one.

    Raises:
        UnsupportedFormat: `truncated_file`, or `unsafe_archive` naming the entry.
    """
    size = path.stat().st_size
    with path.open("rb") as file, path.open("rb") as directory_file:
        directory = _directory(file, size)
        if directory.count > MAX_ENTRIES:
            raise unsafe(f"it has {directory.count} entries, more than {MAX_ENTRIES}")
        yield from _checked(file, directory_file, directory, size=size)


def _checked(
    file: BinaryIO, directory_file: BinaryIO, directory: _Directory, *, size: int
) -> Iterator[Entry]:
    directory_file.seek(directory.start)
    names: set[int] = set()  # hashes: names may be long, and there may be many
    unpacked = packed = 0
    for _ in range(directory.count):
        entry = _entry(directory_file, file, directory)
        if hash(entry.name) in names:
            raise unsafe(f"the name {_shown(entry.name)} occurs twice")
        names.add(hash(entry.name))
        unpacked += entry.size
        packed += entry.packed
        yield entry
    if directory_file.tell() != directory.end:
        raise unsafe("its directory is longer than its entries")
    if packed > directory.start:
        raise unsafe("its entries claim more bytes than the file has")
    if unpacked > max(FREE_BYTES, MAX_RATIO * size):
        raise unsafe(f"{size} bytes would unpack to {unpacked}, more than {MAX_RATIO} times")


def _directory(file: BinaryIO, size: int) -> _Directory:
    begin = max(0, size - _TAIL)
    file.seek(begin)
    tail = file.read(_TAIL)
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise refusal("truncated_file", "it begins as a zip and has no directory at its end")
    disk, first, here, count, length, start, comment = struct.unpack_from(
        "<4H2LH", tail, at + 4
    )
    if len(tail) - at - 22 != comment:
        raise unsafe("there are bytes after its end")
    end = begin + at
    said = _Said(disk, first, here, count, length, start)
    wide = _wide_record(file, end)
    if wide is None:
        return _placed(said, end=end)
    record, found = wide
    for narrow, full in zip(said, found, strict=True):
        if narrow not in (full, _FULL16, _FULL32):
            raise unsafe("its two end records differ")
    return _placed(found, end=record)


class _Said(NamedTuple):
    """What an end record says."""

    disk: int
    first: int
    here: int
    entries: int
    length: int
    start: int


def _wide_record(file: BinaryIO, end: int) -> tuple[int, _Said] | None:
    """The zip64 end record, which torch always writes: its offset, and what it says."""
    file.seek(max(0, end - 20))
    locator = file.read(20)
    if not locator.startswith(_LOCATOR64):
        return None
    _, record, _ = struct.unpack("<LQL", locator[4:])
    if record > end - 20 - 56:
        raise unsafe("its zip64 records do not fit together")
    file.seek(record)
    found = file.read(56)
    if not found.startswith(_END64):
        raise unsafe("its zip64 records do not fit together")
    return record, _Said(*struct.unpack_from("<2L4Q", found, 16))


def _placed(said: _Said, *, end: int) -> _Directory:
    if said.disk or said.first or said.here != said.entries:
        raise unsafe("it is one part of several")
    if said.start + said.length != end:
        raise unsafe("its directory is not where it says")
    return _Directory(said.entries, said.start, end)


def _entry(directory_file: BinaryIO, file: BinaryIO, directory: _Directory) -> Entry:
    head = directory_file.read(46)
    if len(head) < 46 or not head.startswith(_CENTRAL):
        raise unsafe("its directory has fewer entries than it says")
    flags, method = struct.unpack_from("<2H", head, 8)
    packed, size, name_size, extra_size, comment_size, disk = struct.unpack_from(
        "<2L4H", head, 20
    )
    attributes, offset = struct.unpack_from("<2L", head, 38)
    raw = directory_file.read(name_size)
    extra = directory_file.read(extra_size)
    directory_file.seek(comment_size, 1)
    name = _name(raw, flags)
    if disk not in (0, _FULL16):
        raise unsafe("it is one part of several")
    size, packed, offset = _wide(extra, size, packed, offset=offset)
    _check_kind(name, flags, method, mode=attributes >> 16)
    if flags & ~_KNOWN_FLAGS or head[6] > _NEWEST_VERSION:
        raise unsafe(f"{_shown(name)} needs features that no model's zip has")
    if method == STORED and size != packed:
        raise unsafe(f"{_shown(name)} is stored, yet says that it has two sizes")
    start = _start(file, offset, raw, flags=flags, sizes=(packed, size), method=method)
    if start + packed > directory.start:
        raise unsafe(f"{_shown(name)} claims more bytes than the file has")
    return Entry(name, method, size, packed, start)


def _name(raw: bytes, flags: int) -> str:
    """Decode and check a name: relative, plain, and not out of the archive."""
    if not 0 < len(raw) <= MAX_NAME:
        raise unsafe(f"an entry's name has {len(raw)} bytes; 1 to {MAX_NAME} are accepted")
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "cp437")
    except UnicodeDecodeError:
        raise unsafe(f"the name {raw[:60]!r} is not UTF-8") from None
    parts = name.removesuffix("/").split("/")
    if "\\" in name or any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        raise unsafe(f"the name {_shown(name)} holds a backslash or a control character")
    if (
        name.startswith("/")
        or name[1:2] == ":"
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise unsafe(f"the name {_shown(name)} leads out of the archive")
    return name


def _check_kind(name: str, flags: int, method: int, *, mode: int) -> None:
    if flags & _ENCRYPTED:
        raise unsafe(f"{_shown(name)} is encrypted")
    if method not in (STORED, DEFLATED):
        raise unsafe(f"{_shown(name)} is packed by method {method}; use deflate or none")
    kind = stat.S_IFMT(mode)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise unsafe(f"{_shown(name)} is a link or a device")


def _wide(extra: bytes, size: int, packed: int, *, offset: int) -> tuple[int, int, int]:
    """Replace the 32-bit values that are full by those of the zip64 extra field."""
    values = [size, packed, offset]
    wanted = [index for index, value in enumerate(values) if value == _FULL32]
    if not wanted:
        return size, packed, offset
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1 and length >= 8 * len(wanted) and at + 4 + length <= len(extra):
            for place, index in enumerate(wanted):
                (values[index],) = struct.unpack_from("<Q", extra, at + 4 + 8 * place)
            return values[0], values[1], values[2]
        at += 4 + length
    raise unsafe("its zip64 records do not fit together")


def _start(
    file: BinaryIO, offset: int, raw: bytes, *, flags: int, sizes: tuple[int, int], method: int
) -> int:
    """Where an entry's bytes begin; its local header must agree with the directory."""
    file.seek(offset)
    head = file.read(30)
    name = _shown(raw.decode("utf-8", "replace"))
    if len(head) < 30 or not head.startswith(_LOCAL):
        raise unsafe(f"{name} is not where the directory says")
    local_flags, local_method = struct.unpack_from("<2H", head, 6)
    packed, size, name_size, extra_size = struct.unpack_from("<2L2H", head, 18)
    if file.read(name_size) != raw or local_method != method or (local_flags ^ flags) & 9:
        raise unsafe(f"{name} differs between directory and header")
    known = [(packed, sizes[0]), (size, sizes[1])]
    streamed = bool(flags & _STREAMED)
    for local, central in known:
        if local not in (central, _FULL32) and not (streamed and local == 0):
            raise unsafe(f"{name} says that it has two sizes")
    begin: int = offset + 30 + name_size + extra_size
    return begin


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:57] + "...")


def head(path: Path, entry: Entry, limit: int) -> bytes:
    """Read at most `limit` bytes of an entry."""
    with path.open("rb") as file:
        file.seek(entry.start)
        packed = file.read(min(entry.packed, limit))
    if entry.method == STORED:
        return packed
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, limit)
    except zlib.error:
        raise unsafe(f"{_shown(entry.name)} cannot be unpacked") from None


def verify(path: Path) -> None:
    """Read every entry and compare its checksum: torch dies of some damage that it meets.

    Raises:
        UnsupportedFormat: `damaged_archive`, naming the entry.
    """
    with zipfile.ZipFile(path) as archive:
        try:
            broken = archive.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
            raise refusal("damaged_archive", "an entry cannot be unpacked") from error
    if broken is not None:
        raise refusal("damaged_archive", f"the checksum of {_shown(broken)} differs")


def is_litter(name: str) -> bool:
    """Whether an operating system left this in the archive."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or parts[-1] in (".DS_Store", "Thumbs.db", "desktop.ini")
