"""Quiet: one measurement at a time on the host, and no other work on its cores meanwhile."""

import fcntl
import os
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

Quiet = Callable[[], AbstractContextManager[bool]]
"""Entering waits for the measuring lock and for idle cores; yields whether both were had."""

LOCK_NAME = "modelpress-measuring.lock"
BUSY_SHARE = 0.10
"""Share of all cores that others may use while a figure still counts."""

# The kernel counts in hundredths, by looking at who runs: so far it errs in a short while.
_TICKS = 0.02
_POLL_SECONDS = 0.05
_LOOK_SECONDS = 0.3


@dataclass(frozen=True)
class Load:
    """CPU seconds so far: of the whole host, and of this process."""

    at: float
    host: float
    own: float

    @classmethod
    def now(cls) -> Self:
        return cls(time.monotonic(), _host_seconds(), time.process_time())

    def others(self, since: "Load") -> float:
        """Share of all cores that other processes used since; 0 where it cannot be seen."""
        return others_in([(since, self)])


def others_in(spans: Sequence[tuple[Load, Load]]) -> float:
    """The same over several spans of time together, each from its first load to its second."""
    wall = sum(end.at - start.at for start, end in spans) * (os.cpu_count() or 1)
    host = sum(end.host - start.host for start, end in spans)
    own = sum(end.own - start.own for start, end in spans)
    return max(0.0, (host - own - _TICKS) / wall) if wall > 0 else 0.0


@contextmanager
def host_quiet(
    *, path: Path | None = None, lock_seconds: float = 600, idle_seconds: float = 15
) -> Iterator[bool]:
    """Hold the host's measuring lock, once the other cores are idle.

    `path` is the lock file, by default one in the system's temporary folder. Yields False where
    the lock or idle cores could not be had in time.
    """
    handle = _open(path or Path(tempfile.gettempdir()) / LOCK_NAME)
    if handle is None:
        yield False
        return
    try:
        yield _locked(handle, lock_seconds) and _idle(idle_seconds)
    finally:
        os.close(handle)


def _open(path: Path) -> int | None:
    """The lock file of any user; never through a link, never something else than a file."""
    # Not O_CREAT at once: the kernel refuses it for another user's file in a sticky folder.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for extra in (0, os.O_CREAT | os.O_EXCL, 0):
        try:
            handle = os.open(path, flags | extra, 0o666)
        except (FileNotFoundError, FileExistsError):
            continue
        except OSError:
            return None
        if extra:
            os.fchmod(handle, 0o666)
        if stat.S_ISREG(os.fstat(handle).st_mode):
            return handle
        os.close(handle)
        return None
    return None


def _locked(handle: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        else:
            return True


def _idle(seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        before = Load.now()
        time.sleep(_LOOK_SECONDS)
        if Load.now().others(before) <= BUSY_SHARE:
            return True
        if time.monotonic() >= deadline:
            return False


def _host_seconds() -> float:
    """Seconds that all cores were busy; time stolen by other virtual machines is busy, too."""
    try:
        with Path("/proc/stat").open() as file:
            fields = [int(field) for field in file.readline().split()[1:]]
    except (OSError, ValueError):
        return 0.0
    user, nice, system, _free, _iowait, irq, softirq, steal = (fields + [0] * 8)[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
