"""Start a child with nothing but what it needs, and end it with everything it started."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from worker.isolation.limits import cores

#: Parent of the package: where it is not installed, isolated mode (-I) would not find it.
ROOT = Path(__file__).resolve().parents[2]
#: -I ignores the environment and the working folder; this is the one addition.
BOOTSTRAP = (
    "import sys; root = sys.argv.pop(1); sys.path[:0] = [] if root in sys.path else [root]; "
)
#: Libraries take a second to tidy up before an exit; there is nothing here worth tidying.
EXIT = "; sys.stdout.flush(); sys.stderr.flush(); import os; os._exit(code)"
CHILD = "from worker.child import main; code = main()" + EXIT
STDERR_BYTES = 64 << 10
#: How long a killed process may take to vanish: the kernel has to free its memory first.
GRACE_SECONDS = 20


def environment(folder: Path) -> dict[str, str]:
    """The whole environment of a child: no address, key or setting of the service is in it."""
    threads = str(cores())
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "XDG_CACHE_HOME": str(folder),
        "USER": "modelpress",  # else torch looks it up in /etc/passwd, which is out of reach
        "OMP_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a process ended: exit code or signal, and what the kernel counted."""

    code: int | None
    signal: int | None
    cpu_seconds: float


class Process:
    """A child in its own session, with two pipes for messages and one for what it prints."""

    def __init__(self, program: str, folder: Path, *arguments: str) -> None:
        answers, self.answers = os.pipe()
        self.messages, messages = os.pipe()
        self.output, output = os.pipe()
        command = [sys.executable, "-I", "-c", BOOTSTRAP + program, str(ROOT), str(folder)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [*command, str(answers), str(messages), *arguments],
                cwd=folder,
                env=environment(folder),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(answers, messages),
                start_new_session=True,
                umask=0o077,
            )
        finally:
            for descriptor in (answers, messages, output):
                os.close(descriptor)
        for descriptor in (self.answers, self.messages, self.output):
            os.set_blocking(descriptor, False)
        self.pid = self._process.pid
        self.ended: Exit | None = None

    def poll(self) -> Exit | None:
        """How it ended, or None while it lives."""
        if self.ended is not None:
            return self.ended
        if sys.platform == "linux":
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
            # Before the child is reaped: only until then is its group's number surely its own.
            self.signal_group(signal.SIGKILL)
        pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        if pid == 0:
            return None
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code  # Popen must not wait for it again
        self.ended = Exit(
            code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
        )
        return self.ended

    def signal_group(self, number: int) -> None:
        """Signal the child and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def end(self) -> None:
        """Kill the child with all that it started, and wait until the kernel has let it go."""
        if self.ended is None:
            self.signal_group(signal.SIGKILL)
        patience = time.monotonic() + GRACE_SECONDS
        while self.poll() is None and time.monotonic() < patience:
            time.sleep(0.01)

    def close(self) -> None:
        for descriptor in (self.answers, self.messages, self.output):
            os.close(descriptor)


@contextlib.contextmanager
def started(program: str, folder: Path, *arguments: str) -> Iterator[Process]:
    """A child that does not outlive the block, whatever happens in it."""
    process = Process(program, folder, *arguments)
    try:
        yield process
    finally:
        process.end()
        process.close()
