"""What every worker does besides its jobs: take over lost ones, enqueue waiting ones, report.

A thread of the worker's main process. That process forks its pool: while a tick holds a
database connection no fork may happen, and between ticks no connection is open.
"""

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from uuid import uuid4

from worker.isolation import layers
from worker.services import Services
from worker.settings import Settings
from worker.tasks.scratch import sweep_scratch

_SWEEP_SECONDS = 600
_SPOOL_SECONDS = 3600  # an upload that has not grown for so long is dead

logger = logging.getLogger(__name__)


class Upkeep:
    """`free_slots` says how many more jobs this worker could start now."""

    def __init__(self, services: Services, *, free_slots: Callable[[], int]) -> None:
        self._services = services
        self._settings: Settings = services.settings
        self._free_slots = free_slots
        self._id = str(uuid4())
        self._due: dict[str, float] = {}
        self._end = threading.Event()
        self._no_fork = threading.Lock()
        self._layers: dict[str, str] = {}
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        os.register_at_fork(
            before=self._no_fork.acquire,
            after_in_parent=self._no_fork.release,
            after_in_child=self._no_fork.release,
        )
        self._layers = dict(layers(self._settings.sandbox))
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        with _logged("signing off"):
            self._services.leases.sign_off(self._id)

    def tick(self) -> None:
        """Do what is due."""
        settings = self._settings
        if self._is_due("reap", settings.reap_seconds):
            with _logged("taking over lost jobs"):
                self.reap()
            with _logged("reporting"):
                self._report()
        if self._is_due("sweep", _SWEEP_SECONDS):
            with _logged("sweeping"):
                self._sweep()
        if self._is_due("requeue", settings.requeue_seconds):
            with _logged("enqueuing waiting jobs"):
                self.requeue()

    def reap(self) -> None:
        """Take over what dead workers held, and enqueue it at once."""
        for taken in self._services.leases.reap():
            logger.warning("job %s was lost by its worker", taken.job_id)
            self._services.discard(taken.unused)
            if taken.queued:
                self._services.publisher.publish(taken.job_id)

    def requeue(self) -> None:
        """Enqueue the jobs that have waited longest, as many as could start now."""
        free = self._free_slots()
        if free > 0:
            for job_id in self._services.leases.queued(free):
                self._services.publisher.publish(job_id)

    def _report(self) -> None:
        self._services.leases.report(
            self._id,
            host=socket.gethostname(),
            slots=self._settings.concurrency,
            sandbox=self._layers,
        )

    def _sweep(self) -> None:
        sweep_scratch(self._settings.scratch, self._services.leases.held_leases())
        self._services.objects.sweep(older_than_seconds=_SPOOL_SECONDS)

    def _is_due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._due.get(what, 0):
            return False
        self._due[what] = now + seconds
        return True

    def _run(self) -> None:
        while True:
            with self._no_fork:
                self.tick()
            if self._end.wait(0.5):
                return


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    """A worker goes on when the database or the broker is away: the next tick tries again."""
    try:
        yield
    except Exception as error:
        logger.warning("%s failed: %s", what, error)
