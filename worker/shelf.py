"""What jobs leave for the next one on the same model and data, on this host's disk.

Only a job of the same owner with the same files reads a folder again, in a sandbox: what a
hostile model leaves there reaches nobody else. The folder is moved into the job and back, so
that no two jobs share it and nothing outside of a job is open to one.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from worker.folders import make_private
from worker.isolation import remove_folder


def shelf_key(owner_id: str, sha256: Iterable[str]) -> str:
    """The name of the folder for these files of this owner."""
    return hashlib.sha256("\n".join([owner_id, *sha256]).encode()).hexdigest()


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Shelf:
    """Folders below `root`; the oldest go when all together exceed `largest_bytes`."""

    root: Path
    largest_bytes: int

    def lend(self, key: str, place: Path) -> None:
        """Move what is kept under `key` to `place`; an empty folder where there is nothing."""
        with contextlib.suppress(OSError):
            shutil.move(self.root / key, place)
        place.mkdir(mode=0o700, exist_ok=True)

    def take_back(self, key: str, place: Path) -> None:
        """Keep a lent folder again, unless it is larger than all the room."""
        size = _bytes(place)
        if not 0 < size <= self.largest_bytes:
            return
        make_private(self.root)
        if (self.root / key).exists():
            return  # another job came back first
        with contextlib.suppress(OSError):
            os.utime(place)
            shutil.move(place, self.root / key)
        self._trim()

    def _trim(self) -> None:
        """Delete what was not asked for longest, until the rest has room."""
        held = sorted(self.root.iterdir(), key=lambda one: one.lstat().st_mtime, reverse=True)
        total = 0
        for folder in held:
            total += _bytes(folder)
            if total > self.largest_bytes:
                remove_folder(folder)


def _bytes(folder: Path) -> int:
    """Size of all files below a folder; links count for nothing and are not followed."""
    total = 0
    with contextlib.suppress(OSError):
        for place, _, names in os.walk(folder):
            total += sum((Path(place) / name).lstat().st_size for name in names)
    return total
