"""What a child uses, seen from outside: the kernel's own limits cover only part of it."""

import contextlib
import os
import re
import stat
import time
from pathlib import Path

from worker.isolation.ended import Cause
from worker.isolation.limits import Limits

#: Files and folders of one job; more of them would cost the host its inodes.
ENTRIES = 50_000
#: Deeper folders are nobody's results: they are there to hide something from this very count.
DEPTH = 32
#: A disk with less room is full.
FULL_BYTES = 1 << 20
#: Pages that are the child's own cost: file-backed pages are the kernel's to drop.
OWN_PAGES = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB", re.MULTILINE)
#: What RLIMIT_DATA counts.
DATA = re.compile(rb"^VmData:\s+(\d+) kB", re.MULTILINE)


class TooMany(Exception):
    """More entries, or deeper ones, than a job may have."""


def resident_bytes(pid: int, *, whole_session: bool) -> int:
    """Memory that a child holds, with everything that it started where it was able to."""
    pids = _session(pid) if whole_session else [pid]
    return sum(_own_bytes(each) for each in pids)


def data_bytes(pid: int) -> int:
    """Memory that a process has asked for, touched or not: its limit is on this."""
    return _counted(pid, DATA)


def _own_bytes(pid: int) -> int:
    return _counted(pid, OWN_PAGES)


def _counted(pid: int, lines: re.Pattern[bytes]) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:  # gone, or a system without /proc
        return 0
    return 1024 * sum(int(found) for found in lines.findall(status))


def _session(leader: int) -> list[int]:
    """Processes of the session that `leader` began."""
    if not Path("/proc/self/stat").exists():
        return []
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - names are all that is needed, and cheaper
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[3]) == leader:
                found.append(int(name))
    return found


def folder_bytes(folder: Path) -> int:
    """Bytes on disk below `folder`, links not followed, while somebody may be changing it.

    Raises:
        TooMany: there is more in it, or it goes deeper, than a job may have.
    """
    total = entries = 0
    # By descriptors: a path of a deep enough folder is longer than the kernel takes.
    for path, folders, files, descriptor in os.fwalk(folder):
        entries += len(folders) + len(files)
        if entries > ENTRIES or path.count("/") - str(folder).count("/") > DEPTH:
            raise TooMany
        for name in (*folders, *files):
            with contextlib.suppress(FileNotFoundError):
                total += 512 * os.lstat(name, dir_fd=descriptor).st_blocks
    return total


def deleted_bytes(pid: int) -> int:
    """Bytes in files that a child deleted but keeps open: no folder shows them."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found = entry.stat()
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    total += found.st_blocks * 512
    return total


class Clock:
    """Seconds that count against a job: not those it had to stand still for others."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._paused = 0.0
        self._since: float | None = None

    def pause(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def resume(self) -> None:
        if self._since is not None:
            self._paused += time.monotonic() - self._since
            self._since = None

    def seconds(self) -> float:
        standing = 0.0 if self._since is None else time.monotonic() - self._since
        return time.monotonic() - self._started - self._paused - standing


def exceeded(
    pid: int, folder: Path | None, limits: Limits, *, clock: Clock, memory: int
) -> Cause | None:
    """The limit that a child has passed, if any. `folder` is None where it cannot write."""
    if clock.seconds() > limits.wall_seconds:
        return Cause.TIME_LIMIT
    if memory > limits.memory_bytes:
        return Cause.OUT_OF_MEMORY
    if folder is None:
        return None
    try:
        used = folder_bytes(folder) + deleted_bytes(pid)
    except TooMany:
        return Cause.FILE_LIMIT
    return Cause.DISK_LIMIT if used > limits.disk_bytes else None


def at_a_limit(folder: Path, limits: Limits) -> Cause | None:
    """The limit of disk that a failed child stood at, if any: a file cut off, a full disk."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < FULL_BYTES:
        return Cause.DISK_LIMIT
    for _, _, files, descriptor in os.fwalk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(name, dir_fd=descriptor).st_size >= limits.disk_bytes:
                    return Cause.DISK_LIMIT
    return None
