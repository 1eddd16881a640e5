"""The processes that `modelpress serve` keeps alive."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence

_WINDOW_SECONDS = 60
_SETTLED_SECONDS = 5  # who lived for so long was killed, and did not fail to start
_LONGEST_PAUSE = 8.0
_PR_SET_PDEATHSIG = 1

logger = logging.getLogger(__name__)


class KeptAlive:
    """A process that is started again when it ends; with longer pauses each time it fails."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        pass_fds: Sequence[int] = (),
        restarts: int = 5,  # within _WINDOW_SECONDS: more are not going to get better
    ) -> None:
        self.name = name
        self._command = list(command)
        self._environment = dict(environment)
        self._pass_fds = tuple(pass_fds)
        self._restarts = restarts
        self._starts: deque[float] = deque(maxlen=restarts + 1)
        self._failures = 0  # in a row
        self._start_at = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def start(self) -> None:
        self._starts.append(time.monotonic())
        self._process = subprocess.Popen(  # noqa: S603 - our own programs
            self._command,
            env=self._environment,
            pass_fds=self._pass_fds,
            # Ctrl-C reaches only us: we stop the others, in order.
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )

    def tend(self) -> bool:
        """Start it again if it has ended; False once that was needed too often."""
        if self._process is not None and self._process.poll() is not None:
            code, self._process = self._process.returncode, None
            logger.warning("%s ended with %d and is started again", self.name, code)
            recent = [at for at in self._starts if at > time.monotonic() - _WINDOW_SECONDS]
            if len(recent) > self._restarts:
                logger.error("%s ended %d times within a minute", self.name, len(recent))
                return False
            self._start_at = time.monotonic() + self._pause()
        if self._process is None and time.monotonic() >= self._start_at:
            self.start()
        return True

    def _pause(self) -> float:
        lived = time.monotonic() - self._starts[-1]
        self._failures = 0 if lived >= _SETTLED_SECONDS else self._failures + 1
        return min(_LONGEST_PAUSE, 0.25 * float(2 ** min(self._failures, 5)))

    def terminate(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it with all that it started."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None


def _end_with_parent() -> None:
    """Have the kernel stop this process in good order when the one that started it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
