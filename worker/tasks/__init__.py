"""The Celery task, and what a worker sets up around it.

The database is asked whether there is anything to do: a message that came twice, late or for a
job that has ended does nothing.
"""

import logging
from functools import cache

from billiard import current_process
from celery import signals
from celery.worker import state

from worker.broker import TASK, app
from worker.services import Services, build_services
from worker.settings import Settings
from worker.tasks.attempt import run_job
from worker.tasks.drain import Drain
from worker.tasks.upkeep import Upkeep

logger = logging.getLogger(__name__)

_settings = Settings()
_drain = Drain()


@app.task(name=TASK)  # type: ignore[untyped-decorator] # Celery has no types
def run(job_id: str) -> None:
    """Run the job if it still waits."""
    if _drain.begun():
        return
    slot = getattr(current_process(), "index", None)
    run_job(_services(), job_id, slot=slot, draining=_drain.due)


@cache
def _services() -> Services:
    """Of this pool process: made at its first job, after the fork."""
    return build_services(_settings)


@cache
def _upkeep() -> Upkeep:
    """Of the worker's main process."""
    return Upkeep(build_services(_settings, pooled=False), free_slots=_free_slots)


def _free_slots() -> int:
    if _drain.begun():
        return 0
    return _settings.concurrency - len(state.reserved_requests)


@signals.worker_init.connect  # type: ignore[untyped-decorator] # Celery has no types
def _on_init(**_: object) -> None:
    # Not when it is ready: that needs a broker, and lost jobs must not wait for one.
    _upkeep().start()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator] # Celery has no types
def _on_shutting_down(**_: object) -> None:
    _drain.begin(grace_seconds=_settings.stop_grace_seconds)


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator] # Celery has no types
def _on_shutdown(**_: object) -> None:
    _upkeep().stop()
