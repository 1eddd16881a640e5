"""One measurement at a time on the whole host, while everybody else's children stand still."""

import contextlib
import fcntl
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from worker.isolation.process import Process
from worker.isolation.watch import Clock

#: The library takes the same lock when it measures in a process without a supervisor.
MEASURING_LOCK = Path(tempfile.gettempdir()) / "modelpress-measuring.lock"

#: Waiting for others' measurements ends here, and so does one's own: nobody starves.
WAIT_SECONDS = 120
HOLD_SECONDS = 120
#: Waiting for idle cores; much shorter once it was in vain, since it is likely to be so again.
IDLE_SECONDS = 5
IDLE_SECONDS_AFTER_FAILURE = 1
WINDOW_SECONDS = 0.25
#: Share of all cores that others may use while a timing counts.
BUSY_SHARE = 0.1


class MeasuringLock:
    """The host-wide lock. Held by an open file, so it ends with the process that holds it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take it if it is free."""
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def held(self) -> bool:
        return self._descriptor is not None

    def held_elsewhere(self) -> bool:
        """Whether somebody else measures now."""
        if self.held():
            return False
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _open(self) -> int:
        # Reading is enough for flock, and /tmp refuses O_CREAT on a file of another user.
        with contextlib.suppress(FileNotFoundError):
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        descriptor = os.open(
            self._path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644
        )
        with contextlib.suppress(PermissionError):  # made by another user just now
            os.fchmod(descriptor, 0o644)
        return descriptor


class BusyCores:
    """Which share of the host's cores was at work since the last look."""

    def __init__(self) -> None:
        self._since, self._last = time.monotonic(), _jiffies()

    def look(self) -> float | None:
        """That share, or None while too little time has passed to tell."""
        passed = time.monotonic() - self._since
        if passed < WINDOW_SECONDS:
            return None
        now = _jiffies()
        seconds = (now - self._last) / os.sysconf("SC_CLK_TCK")
        busy = seconds / passed / (os.cpu_count() or 1)
        self._since, self._last = time.monotonic(), now
        return busy


def _jiffies() -> int:
    """Ticks that all cores spent on work, and on other guests of the same machine."""
    try:
        with Path("/proc/stat").open() as file:
            numbers = [int(word) for word in file.readline().split()[1:9]]
    except OSError:
        return 0
    idle, waiting = numbers[3], numbers[4]
    return sum(numbers) - idle - waiting


class Quiet:
    """What one supervisor does about measuring: its own child's, and that of others."""

    def __init__(
        self, lock: MeasuringLock, clock: Clock, answer: Callable[[bool], None]
    ) -> None:
        self.processes: list[Process] = []  #: what has to stand still for others
        self._lock, self._clock, self._answer = lock, clock, answer
        self._waiting_since: float | None = None
        self._taken_at = 0.0
        self._busy: BusyCores | None = None
        self._patience: float = IDLE_SECONDS
        self._longest = math.inf
        self._standing = False

    def enter(self, seconds: float) -> None:
        """The child waits, for the lock and for idle cores, not longer than this for each."""
        self._waiting_since, self._longest = time.monotonic(), seconds

    def leave(self) -> None:
        had = self._lock.held()
        self._lock.release()
        self._waiting_since = None
        self._answer(had)

    def end(self) -> None:
        """The child is gone: what it waited for is nobody's business any more."""
        self._waiting_since = None
        self._lock.release()

    def step(self) -> None:
        """Called all the time."""
        if self._lock.held():
            self._hold()
        elif self._waiting_since is not None:
            self._wait(self._waiting_since)
        else:
            self._stand_still(self._lock.held_elsewhere())

    def _wait(self, since: float) -> None:
        """The child waits in its read: it need not be stopped, and its clock need not run."""
        self._stand_still(False)
        if self._lock.take():
            self._clock.resume()
            self._taken_at, self._busy = time.monotonic(), BusyCores()
        elif time.monotonic() - since > min(WAIT_SECONDS, self._longest):
            self._clock.resume()
            self._reply(False)
        else:
            self._clock.pause()

    def _hold(self) -> None:
        held = time.monotonic() - self._taken_at
        if held > HOLD_SECONDS:
            self._lock.release()
        if self._waiting_since is None or self._busy is None:
            return
        busy = self._busy.look()
        if busy is not None and busy <= BUSY_SHARE:
            self._patience = IDLE_SECONDS
            self._reply(True)
        elif held > min(self._patience, self._longest):
            # The lock stays: at least no job of ours adds to the noise.
            self._patience = IDLE_SECONDS_AFTER_FAILURE
            self._reply(False)

    def _reply(self, had: bool) -> None:
        self._waiting_since = self._busy = None
        self._answer(had)

    def _stand_still(self, still: bool) -> None:
        if still == self._standing:
            return
        self._standing = still
        for process in self.processes:
            process.signal_group(signal.SIGSTOP if still else signal.SIGCONT)
        if still:
            self._clock.pause()
        else:
            self._clock.resume()
