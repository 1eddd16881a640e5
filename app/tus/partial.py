"""The file that an upload grows in. What it holds is synced before anybody is told of it."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from time import time

from app.errors import Refusal
from worker.jobs import Announced
from worker.objects import ObjectStore, sweep_folder
from worker.services import Services

logger = logging.getLogger(__name__)


def create(objects: ObjectStore, upload_id: str) -> None:
    """Make the empty file."""
    path = _path(objects, upload_id)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    _sync(path.parent)


def remove(objects: ObjectStore, upload_id: str) -> None:
    _path(objects, upload_id).unlink(missing_ok=True)


def offset(objects: ObjectStore, upload: Announced) -> int:
    """How many bytes are safe on the disk.

    Raises:
        Refusal: files_gone.
    """
    if upload.artifact_id is not None:
        return upload.bytes
    try:
        with _path(objects, upload.id).open("rb") as file:
            os.fsync(file.fileno())  # after a crash of the host: what is told now must hold
            return os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        raise gone() from None


@contextmanager
def locked(objects: ObjectStore, upload: Announced) -> Iterator[tuple[Path, FileIO]]:
    """The file, open to append, for one request at a time over all processes of this host.

    Raises:
        Refusal: upload_locked or files_gone.
    """
    path = _path(objects, upload.id)
    try:
        file = FileIO(path, "r+")
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
        file.seek(0, os.SEEK_END)
        yield path, file


def sweep(services: Services) -> None:
    """Remove what was not completed in time; called every few minutes."""
    for upload_id in services.uploads.overdue():
        remove(services.objects, upload_id)
        services.uploads.forget(upload_id)
    # Those of records that another host has removed already.
    seconds = services.settings.upload_hours * 3600
    sweep_folder(services.objects.partials, before=time() - seconds)


def _path(objects: ObjectStore, upload_id: str) -> Path:
    return objects.partials / upload_id


def gone() -> Refusal:
    return Refusal("files_gone", "what was sent of this upload is gone", hint="begin again")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
