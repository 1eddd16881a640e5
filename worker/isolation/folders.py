"""The folder of a job: whose it is, and how it goes away."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from worker.isolation.privileges import FIRST_UID, SLOTS


def own_uid(slot: int | None, sandbox: str) -> int | None:
    """The user that a child becomes, where we may say so; None where it stays ours."""
    if sandbox == "off" or os.geteuid() != 0:
        return None
    return FIRST_UID + (os.getpid() if slot is None else slot) % SLOTS


def give(folder: Path, uid: int | None) -> None:
    """Make the folder and what is in it the child's, and nobody else's."""
    folder.chmod(0o700)
    if uid is None:
        return
    with contextlib.suppress(OSError):  # a root that may not change owners, nor its user then
        for _, folders, files, descriptor in os.fwalk(folder):
            for name in (*folders, *files):
                found = os.lstat(name, dir_fd=descriptor)
                # A file with a second name belongs to somebody else as well.
                if found.st_nlink == 1 or stat.S_ISDIR(found.st_mode):
                    os.chown(name, uid, uid, dir_fd=descriptor, follow_symlinks=False)
        os.chown(folder, uid, uid)


def remove_folder(folder: Path) -> None:
    """Delete a folder that a stranger's code has filled, however deep it goes.

    Inner folders are moved up before they are emptied: no recursion, and no path that is longer
    than the kernel takes. What is gone already is no error.
    """
    with contextlib.suppress(FileNotFoundError):
        top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            while inner := _empty(top):
                for name in inner:
                    _remove_inner(top, name)
        finally:
            os.close(top)
        folder.rmdir()


def _remove_inner(top: int, name: str) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    os.chmod(name, 0o700, dir_fd=top)
    descriptor = os.open(name, flags, dir_fd=top)
    try:
        for deeper in _empty(descriptor):
            os.rename(deeper, secrets.token_hex(16), src_dir_fd=descriptor, dst_dir_fd=top)
    finally:
        os.close(descriptor)
    os.rmdir(name, dir_fd=top)


def _empty(descriptor: int) -> list[str]:
    """Delete the files of a folder; its folders are left, and named."""
    with os.scandir(descriptor) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=descriptor)
    return [name for name, is_folder in found if is_folder]
