"""`python -m worker.tasks`: jobs without a broker, for a worker that hears of none.

It takes one of the worker's slots and works until nothing waits. It dies with the worker; at
SIGTERM it hands its job back after the usual grace.
"""

import logging
import os
import signal
import subprocess
import sys
from types import FrameType

from worker.isolation import die_with_parent
from worker.logs import set_up_logging
from worker.services import build_services
from worker.settings import Settings
from worker.tasks.attempt import run_next
from worker.tasks.drain import Drain
from worker.tasks.slots import Slots
from worker.tracing import trace_jobs

logger = logging.getLogger(__name__)


class DirectRuns:
    """The processes of this kind that one worker has running."""

    def __init__(self, settings: Settings, slots: Slots) -> None:
        self._settings = settings
        self._slots = slots
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start one; it dies with the thread that calls this."""
        descriptor = self._slots.descriptor
        command = [sys.executable, "-m", "worker.tasks"]
        self._running.append(
            subprocess.Popen(  # noqa: S603 - our own program
                [*command, str(os.getpid()), str(descriptor)],
                env={**os.environ, **self._settings.environment()},
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
            )
        )

    def count(self) -> int:
        self._running = [process for process in self._running if process.poll() is None]
        return len(self._running)

    def stop(self, *, seconds: float) -> None:
        """Ask them to stop, and wait until they have."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def main(parent: int, descriptor: int) -> None:
    """Run what waits, one job after another."""
    die_with_parent(parent)
    settings = Settings()
    set_up_logging(settings.log_format)
    drain = Drain()

    def on_stop(number: int, frame: FrameType | None) -> None:
        drain.begin(grace_seconds=settings.stop_grace_seconds)

    signal.signal(signal.SIGTERM, on_stop)
    trace_jobs(settings.traces_endpoint)
    with Slots(settings.concurrency, descriptor).taken() as slot:
        services = build_services(settings)
        while slot is not None and not drain.begun():
            if run_next(services, slot=slot, draining=drain.due) is None:
                return
