"""Folders that jobs work in: one per lease, gone when the attempt ends."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

from worker.folders import make_private
from worker.isolation import remove_folder
from worker.jobs import Job


@contextlib.contextmanager
def scratch_folder(root: Path, job: Job) -> Iterator[Path]:
    """A private folder for one attempt."""
    folder = make_private(root / str(job.lease_id))
    try:
        yield folder
    finally:
        remove_folder(folder)


def sweep_scratch(root: Path, held_leases: Collection[str]) -> None:
    """Remove the folders of attempts that nobody works on any more."""
    with contextlib.suppress(FileNotFoundError):
        for folder in root.iterdir():
            if folder.name not in held_leases:
                remove_folder(folder)
