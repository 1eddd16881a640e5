"""An upload on its way: written to a spool file and hashed, then kept or forgotten."""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from uuid import uuid4

from worker.folders import make_private

if TYPE_CHECKING:
    from worker.objects.base import StoredObject

_PIECE_BYTES = 1024 * 1024
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Incoming:
    """A context manager that leaves nothing behind unless it was committed."""

    def __init__(
        self,
        folder: Path,
        *,
        keep: "Callable[[Path, int, str], StoredObject]",
        expected_bytes: int | None = None,
        partial: Path | None = None,
    ) -> None:
        self.path = make_private(folder) / uuid4().hex
        self.bytes = 0
        self._keep = keep
        self._hash = hashlib.sha256()
        self._allocated = False
        if partial is not None:
            os.link(partial, self.path)
        self._file = FileIO(self.path, "a" if partial else "x", opener=_private)
        if partial is not None:
            self._count()
        if expected_bytes:
            self._allocate(expected_bytes)

    @property
    def sha256(self) -> str:
        """SHA-256 of what has arrived so far."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> int:
        """Append; call it in a thread, with about 1 MiB at a time."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self._hash.update(data)
        self.bytes += len(data)
        return len(data)

    def commit(self) -> "StoredObject":
        """Make it an object that survives a power cut."""
        if self._allocated:
            self._file.truncate(self.bytes)
        os.fsync(self._file.fileno())
        self._file.close()
        return self._keep(self.path, self.bytes, self.sha256)

    def abort(self) -> None:
        """Forget it; nothing happens after a commit."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()

    def _count(self) -> None:
        """Hash what the file has already."""
        with self.path.open("rb", buffering=0) as file:
            while piece := file.read(_PIECE_BYTES):
                self._hash.update(piece)
                self.bytes += len(piece)

    def _allocate(self, expected_bytes: int) -> None:
        """Take the space now: a disk that is too small is better known before the body."""
        try:
            os.posix_fallocate(self._file.fileno(), 0, expected_bytes)
        except OSError as error:
            if error.errno in _NOT_SUPPORTED:
                return
            self.abort()
            raise
        self._allocated = True


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def sweep_folder(folder: Path, *, before: float) -> None:
    """Remove files of a spool folder that were last written before a time."""
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()


def sync_folder(folder: Path) -> None:
    """Keep the names in a folder over a power failure: fsync of a file keeps its bytes."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
