"""Folders that only our own user may enter."""

from pathlib import Path


def make_private(folder: Path) -> Path:
    """Make a folder with mode 0700, and so each parent that is missing; give it back."""
    # `parents=True` alone would make the parents with the mode of the umask.
    for missing in [parent for parent in (folder, *folder.parents) if not parent.exists()][
        ::-1
    ]:
        missing.mkdir(mode=0o700, exist_ok=True)
    return folder
