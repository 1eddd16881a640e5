"""Uploads that grow in a file each, beside the objects of a folder.

What a file holds is synced before anybody is told of it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from app.errors import Refusal
from app.tus.growth import gone
from worker.jobs import Announced
from worker.objects import Incoming, LocalStore, sweep_folder, sync_folder


class FileAppending:
    """A file, open at its end."""

    def __init__(self, file: FileIO) -> None:
        self._file = file
        self._kept = file.seek(0, os.SEEK_END)

    @property
    def at(self) -> int:
        return self._file.tell()

    def write(self, batch: bytes) -> None:
        rest = memoryview(batch)
        while rest:
            rest = rest[self._file.write(rest) :]

    def keep(self) -> None:
        os.fsync(self._file.fileno())
        self._kept = self._file.tell()

    def drop(self) -> None:
        self._file.truncate(self._kept)
        self._file.seek(self._kept)


class FileGrowth:
    """A file for each upload in one folder, which may be shared by hosts."""

    def __init__(self, objects: LocalStore) -> None:
        self._objects = objects
        self._folder = objects.partials

    def begin(self, upload_id: str) -> None:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        os.close(os.open(self._path(upload_id), flags, 0o600))
        sync_folder(self._folder)

    def offset(self, upload: Announced) -> int:
        try:
            with self._path(upload.id).open("rb") as file:
                # After a crash of the host: what is told now must hold.
                os.fsync(file.fileno())
                return os.fstat(file.fileno()).st_size
        except FileNotFoundError:
            raise gone() from None

    @contextmanager
    def append(self, upload: Announced) -> Iterator[FileAppending]:
        """One request at a time, over all processes."""
        try:
            file = FileIO(self._path(upload.id), "r+")
        except FileNotFoundError:
            raise gone() from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Refusal(
                    "upload_locked",
                    "another request sends to this upload",
                    hint="wait until it has ended, then ask for the offset again",
                    headers={"Retry-After": "1"},
                ) from None
            yield FileAppending(file)

    def whole(self, upload: Announced) -> Incoming:
        try:
            return self._objects.adopt(upload.owner_id, self._path(upload.id))
        except FileNotFoundError:
            raise gone() from None  # its time was over while it was sent

    def remove(self, upload_id: str) -> None:
        self._path(upload_id).unlink(missing_ok=True)

    def sweep(self, *, before: float) -> None:
        """Remove the files of records that another host has removed already."""
        sweep_folder(self._folder, before=before)

    def _path(self, upload_id: str) -> Path:
        return self._folder / upload_id
