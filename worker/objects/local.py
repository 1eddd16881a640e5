"""Objects as files of one folder."""

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Generator, Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from worker.folders import make_private
from worker.objects.base import (
    PIECE_BYTES,
    Listed,
    ObjectMissing,
    StoredObject,
    checked,
    upload_key,
)
from worker.objects.incoming import Incoming, sweep_folder, sync_folder

# No owner's id begins with a dot, so no key does.
_SPOOL = ".incoming"


class LocalStore:
    """A folder on a local disk; files arrive in its spool and are renamed into place."""

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root).expanduser().absolute()
        self._spool = make_private(self._root / _SPOOL)

    @property
    def outages(self) -> tuple[type[Exception], ...]:
        return ()

    @property
    def partials(self) -> Path:
        """Folder for uploads that come in several requests, a file for each."""
        return make_private(self._spool.with_name(".partial"))

    def receive(self, owner_id: str, *, expected_bytes: int | None = None) -> Incoming:
        keep = self._keeper(owner_id)
        return Incoming(self._spool, keep=keep, expected_bytes=expected_bytes)

    def adopt(self, owner_id: str, partial: Path) -> Incoming:
        """Go on with a file of that folder as an upload; the file itself stays."""
        return Incoming(self._spool, keep=self._keeper(owner_id), partial=partial)

    def _keeper(self, owner_id: str) -> Callable[[Path, int, str], StoredObject]:
        def keep(path: Path, size: int, sha256: str) -> StoredObject:
            key = upload_key(owner_id, sha256)
            self._place(path, key)
            return StoredObject(key=key, bytes=size, sha256=sha256)

        return keep

    def put(self, key: str, file: BinaryIO) -> StoredObject:
        def keep(path: Path, size: int, sha256: str) -> StoredObject:
            self._place(path, key)
            return StoredObject(key=key, bytes=size, sha256=sha256)

        with Incoming(self._spool, keep=keep) as copy:
            shutil.copyfileobj(file, copy, PIECE_BYTES)
            return copy.commit()

    def stat(self, key: str) -> int:
        with _missing(key):
            return self._path(key).stat().st_size

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        with _missing(key):
            file = self._path(key).open("rb", buffering=0)
        return _pieces(file, start, stop)

    def local_path(self, key: str) -> Path | None:
        return self._path(key)

    def fetch(self, key: str, destination: Path) -> None:
        with _missing(key):
            shutil.copyfile(self._path(key), destination)

    def delete(self, key: str) -> None:
        path = self._path(key)
        path.unlink(missing_ok=True)
        self._prune(path.parent)

    def delete_prefix(self, prefix: str) -> None:
        folder = self._path(prefix)
        shutil.rmtree(folder, ignore_errors=True)
        self._prune(folder.parent)

    def list(self) -> Iterator[Listed]:
        for path in self._root.rglob("*"):
            key = path.relative_to(self._root)
            if key.parts[0].startswith("."):
                continue
            with contextlib.suppress(FileNotFoundError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    age = time.time() - found.st_mtime
                    yield Listed(key=key.as_posix(), bytes=found.st_size, age_seconds=age)

    def sweep(self, *, older_than_seconds: float) -> None:
        sweep_folder(self._spool, before=time.time() - older_than_seconds)

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._spool).free

    def ping(self) -> None:
        if not os.access(self._spool, os.W_OK):
            raise PermissionError(f"{self._spool} cannot be written to")

    def _path(self, key: str) -> Path:
        return self._root / checked(key)

    def _place(self, path: Path, key: str) -> None:
        """Rename a synced file into place and sync the folders on the way."""
        target = self._path(key)
        while True:
            try:
                make_private(target.parent)
                path.rename(target)
                break
            except FileNotFoundError:
                # A deletion pruned the folder between the two calls: make it again.
                if not path.exists():
                    raise
        for folder in target.relative_to(self._root).parents:
            sync_folder(self._root / folder)

    def _prune(self, folder: Path) -> None:
        """Remove folders that became empty."""
        with contextlib.suppress(OSError):
            while folder != self._root:
                folder.rmdir()
                folder = folder.parent


def _pieces(file: FileIO, start: int, stop: int | None) -> Generator[bytes]:
    with file:
        file.seek(start)
        left = None if stop is None else stop - start
        while left is None or left > 0:
            data = file.read(PIECE_BYTES if left is None else min(PIECE_BYTES, left))
            if not data:
                return
            left = None if left is None else left - len(data)
            yield data


@contextlib.contextmanager
def _missing(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise ObjectMissing(key) from None
