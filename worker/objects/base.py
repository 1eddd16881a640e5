"""What every object store can do. Keys are made by us and begin with the owner's id."""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from uuid import uuid4

from worker.objects.incoming import Incoming

PIECE_BYTES = 1024 * 1024
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class ObjectMissing(Exception):
    """No object has this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no object {key!r}")
        self.key = key


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An object as a listing tells of it."""

    key: str
    bytes: int
    age_seconds: float


class ObjectStore(Protocol):
    """Files by key; an object is there as a whole or not at all, also after a power cut."""

    @property
    def outages(self) -> tuple[type[Exception], ...]:
        """What is raised where the store cannot be reached, or refuses us."""
        ...

    def list(self) -> Iterator[Listed]:
        """Every object."""
        ...

    def receive(self, owner_id: str, *, expected_bytes: int | None = None) -> Incoming:
        """Begin an upload; `commit` of the answer makes it an object.

        Raises:
            OSError: ENOSPC where `expected_bytes` do not fit on the disk.
        """
        ...

    def put(self, key: str, file: BinaryIO) -> StoredObject:
        """Store the rest of an open file under a key."""
        ...

    def stat(self, key: str) -> int:
        """Size of an object in bytes, or ObjectMissing."""
        ...

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        """Bytes `start` to `stop` (exclusive) in pieces, or ObjectMissing before the first.

        Whoever does not take all of them closes it.
        """
        ...

    def local_path(self, key: str) -> Path | None:
        """The file itself where the store is a folder; it must not be written to."""
        ...

    def fetch(self, key: str, destination: Path) -> None:
        """Copy an object into a file, or raise ObjectMissing."""
        ...

    def delete(self, key: str) -> None:
        """Delete an object; one that is gone already is fine."""
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Delete everything below `prefix/`."""
        ...

    def sweep(self, *, older_than_seconds: float) -> None:
        """Remove what aborted uploads left behind on this host."""
        ...

    def free_bytes(self) -> int:
        """Free space of the disk that uploads arrive on."""
        ...

    def ping(self) -> None:
        """Raise if the store cannot be reached."""
        ...


def checked(key: str) -> str:
    """Give the key back, or refuse one that we cannot have made."""
    if not _KEY.fullmatch(key):
        raise ObjectMissing(key)
    return key


def upload_key(owner_id: str, sha256: str) -> str:
    """Name an upload by its content; the last part keeps two copies apart until one is dropped.

    Which copy stays is decided by the database, in the transaction that records it: an upload
    can so never find its content in place and lose it to a deletion a moment later.
    """
    return f"{owner_id}/uploads/{sha256[:2]}/{sha256}-{uuid4().hex[:12]}"
