"""Folders that jobs work in: one per lease, gone when the attempt ends."""

import contextlib
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from worker.folders import make_private
from worker.jobs import Job


@contextlib.contextmanager
def scratch_folder(root: Path, job: Job) -> Iterator[Path]:
    """A private folder for one attempt."""
    folder = make_private(root / str(job.lease_id))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_scratch(root: Path, held_leases: Collection[str]) -> None:
    """Remove the folders of attempts that nobody works on any more."""
    with contextlib.suppress(FileNotFoundError):
        for folder in root.iterdir():
            if folder.name not in held_leases:
                shutil.rmtree(folder, ignore_errors=True)
