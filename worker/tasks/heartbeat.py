"""A thread that holds the lease of one job, records its progress and sees when to stop."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from worker.isolation import Progress
from worker.jobs import Job, Leases

CANCELED = "canceled"
LEASE_LOST = "lease_lost"
DRAINING = "draining"

_TICK_SECONDS = 0.2
_LOOK_SECONDS = 1.0
_WRITE_SECONDS = 0.7  # what was said is on record within a second

logger = logging.getLogger(__name__)


class Heartbeat:
    """Beats while the block runs; `reason` says why the job must stop, if it must.

    A database that cannot be reached is no reason: until another worker has taken the job over
    the lease can still be renewed, and nothing can be published without it.
    """

    def __init__(
        self, leases: Leases, job: Job, *, renew_seconds: float, draining: Callable[[], bool]
    ) -> None:
        self._leases = leases
        self._job = job
        self._renew_seconds = renew_seconds
        self._draining = draining
        self._said: Progress | None = None
        self._written: Progress | None = None
        self._wrote = self._looked = self._renewed = time.monotonic()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self.reason: str | None = None

    def say(self, progress: Progress) -> None:
        """Record this soon; only the latest counts."""
        self._said = progress

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while self.reason is None and not self._end.wait(_TICK_SECONDS):
            try:
                self.reason = self._beat(time.monotonic())
            except Exception as error:
                logger.warning("job %s: no heartbeat: %s", self._job.id, error)
                self._end.wait(_LOOK_SECONDS)

    def _beat(self, now: float) -> str | None:
        if self._draining():
            return DRAINING
        said = self._said
        if said is not None and said != self._written and now - self._wrote >= _WRITE_SECONDS:
            if not self._leases.progress(
                self._job, stage=said.stage, share=said.share, message=said.message
            ):
                return LEASE_LOST
            self._written = said
            self._wrote = self._renewed = now
        elif now - self._renewed >= self._renew_seconds:
            if not self._leases.renew(self._job):
                return LEASE_LOST
            self._renewed = now
        return self._look(now)

    def _look(self, now: float) -> str | None:
        if now - self._looked < _LOOK_SECONDS:
            return None
        self._looked = now
        beat = self._leases.look(self._job)
        if not beat.held:
            return LEASE_LOST
        return CANCELED if beat.cancel_requested else None
