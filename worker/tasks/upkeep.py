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
from worker.retention import expire
from worker.services import Services
from worker.settings import Settings
from worker.tasks.direct import DirectRuns
from worker.tasks.hearing import DEAF_EXIT, Hearing
from worker.tasks.scratch import sweep_scratch

_PULSE_SECONDS = 10
_SWEEP_SECONDS = 600
_SPOOL_SECONDS = 3600  # an upload that has not grown for so long is dead
_LOOK_SECONDS = 2.0  # how often a free worker looks whether jobs wait
_STOP_MARGIN_SECONDS = 10

logger = logging.getLogger(__name__)


class Upkeep:
    """`free_slots` says how many more jobs this worker could start now, `drain` ends it."""

    def __init__(
        self,
        services: Services,
        *,
        free_slots: Callable[[], int],
        hearing: Hearing,
        direct: DirectRuns,
        drain: Callable[[], None],
    ) -> None:
        self._services = services
        self._settings: Settings = services.settings
        self._free_slots = free_slots
        self._hearing = hearing
        self._direct = direct
        self._drain = drain
        self._id = str(uuid4())
        self._due: dict[str, float] = {}
        self._waiting_since: float | None = None
        self._deaf = False
        self._end = threading.Event()
        self._no_fork = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        os.register_at_fork(
            before=self._no_fork.acquire,
            after_in_parent=self._no_fork.release,
            after_in_child=self._no_fork.release,
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop the direct runs, then the thread that they would die with."""
        self._direct.stop(seconds=self._settings.stop_grace_seconds + _STOP_MARGIN_SECONDS)
        self._end.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        with _logged("signing off"):
            self._services.workers.sign_off(self._id)

    def tick(self) -> None:
        """Do what is due."""
        settings = self._settings
        if self._is_due("pulse", _PULSE_SECONDS):
            with _logged("telling that it lives"):
                settings.pulse.touch(mode=0o600)
        self._hearing.listen()
        if self._is_due("reap", settings.reap_seconds):
            with _logged("taking over lost jobs"):
                self.reap()
            with _logged("reporting"):
                self._report()
        if self._is_due("sweep", _SWEEP_SECONDS):
            with _logged("sweeping"):
                self._sweep()
        if self._is_due("look", _LOOK_SECONDS):
            with _logged("looking for waiting jobs"):
                self.look()
        if self._is_due("requeue", settings.requeue_seconds):
            with _logged("enqueuing waiting jobs"):
                self.requeue()

    def reap(self) -> None:
        """Take over what dead workers held, and enqueue it at once."""
        for taken in self._services.leases.reap():
            logger.warning("job %s was lost by its worker", taken.job_id)
            self._services.discard(taken.unused)
            if taken.queued:
                self._announce(taken.job_id)

    def requeue(self) -> None:
        """Enqueue the jobs that are next, as many as could start now."""
        free = self._free()
        # What a broker that is away did not take yet says the same.
        if free > 0 and self._services.publisher.backlog() == 0:
            for job_id in self._waiting(free):
                self._announce(job_id)

    def _announce(self, job_id: str) -> None:
        """Send a message from another thread: a frozen broker must not hold up this one."""
        # Asked here: in the other thread a fork could meet the open connection.
        size_class = self._services.leases.size_class(job_id)
        self._services.publisher.enqueue(job_id, size_class=size_class)

    def look(self) -> None:
        """Start a job without the broker where one has waited beside a free slot for long."""
        if self._deaf and self._free() == self._settings.concurrency:
            logger.error("the broker answers, jobs waited, and no message came: started again")
            os._exit(DEAF_EXIT)  # the main thread may hang in the broken connection
        if self._free() <= 0 or not self._waiting(1):
            self._waiting_since = None
            return
        now = time.monotonic()
        self._waiting_since = self._waiting_since or now
        patience = _LOOK_SECONDS if self._hearing.in_vain else self._settings.direct_seconds
        if now - self._waiting_since < patience:
            return
        self._waiting_since = None
        logger.warning("a job waits and no message comes: it is started without the broker")
        self._direct.start()
        # Only now: to ask a frozen broker takes longer than the job may wait.
        self._deaf = self._hearing.missed()

    def _free(self) -> int:
        return self._free_slots() - self._direct.count()

    def _waiting(self, limit: int) -> list[str]:
        return self._services.leases.queued(limit, classes=self._settings.size_classes)

    def _report(self) -> None:
        asked_to_drain = self._services.workers.report(
            self._id,
            host=socket.gethostname(),
            slots=self._settings.concurrency,
            sandbox=dict(layers(self._settings.sandbox)),
            classes=self._settings.size_classes,
            silent_seconds=self._hearing.silent_seconds(),
        )
        if asked_to_drain:
            self._drain()

    def _sweep(self) -> None:
        sweep_scratch(self._settings.scratch, self._services.leases.held_leases())
        self._services.objects.sweep(older_than_seconds=_SPOOL_SECONDS)
        expire(self._services)

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
