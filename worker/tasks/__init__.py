"""The Celery task, and what a worker sets up around it.

The database is asked whether there is anything to do: a message that came twice, late or for a
job that has ended does nothing.
"""

import logging
import math
import os
import signal
import sys
from functools import cache

from celery import Task, signals
from celery.worker import state

from worker.broker import TASK, app
from worker.isolation import layers, missing_layers
from worker.logs import set_up_logging
from worker.services import Services, build_services
from worker.settings import Settings
from worker.tasks.attempt import run_next
from worker.tasks.direct import DirectRuns
from worker.tasks.drain import Drain
from worker.tasks.hearing import Hearing
from worker.tasks.slots import Slots
from worker.tasks.upkeep import Upkeep
from worker.tracing import carrier_in, trace_jobs

_UNSEALED_EXIT = 78  # as a child that cannot be sealed

logger = logging.getLogger(__name__)

_settings = Settings()
_drain = Drain()
_slots = Slots(_settings.concurrency)


@app.task(name=TASK, bind=True)  # type: ignore[untyped-decorator] # Celery has no types
def run(task: Task, job_id: str) -> None:
    """Run the job that is next: the message says that one waits, the database which."""
    if _drain.begun():
        return
    with _slots.taken() as slot:
        if slot is not None:
            asked_by = {job_id: carrier_in(task.request.headers or {})}
            run_next(_services(), slot=slot, draining=_drain.due, asked_by=asked_by)


@cache
def _services() -> Services:
    """Of this pool process: made at its first job, after the fork."""
    trace_jobs(_settings.traces_endpoint)
    return build_services(_settings)


@cache
def _upkeep() -> Upkeep:
    """Of the worker's main process."""
    services = build_services(_settings, pooled=False)
    hearing = Hearing(
        heard=lambda: sum(state.total_count.values()),
        broker_answers=services.publisher.answers,
        deaf_seconds=_settings.deaf_seconds,
    )
    return Upkeep(
        services,
        free_slots=_free_slots,
        hearing=hearing,
        direct=DirectRuns(_settings, _slots),
        drain=_drain_to_the_end,
    )


def _free_slots() -> int:
    if _drain.begun():
        return 0
    return _settings.concurrency - len(state.reserved_requests)


def _drain_to_the_end() -> None:
    """Take no further jobs, and stop when the running ones have ended."""
    if not _drain.begun():
        logger.info("this worker was asked to drain: it ends when its jobs have")
        _drain.begin(grace_seconds=math.inf)
        os.kill(os.getpid(), signal.SIGTERM)


@signals.setup_logging.connect  # type: ignore[untyped-decorator] # Celery has no types
def _on_logging(**_: object) -> None:
    set_up_logging(_settings.log_format)


@signals.worker_init.connect  # type: ignore[untyped-decorator] # Celery has no types
def _on_init(**_: object) -> None:
    if _settings.sandbox == "required" and (missing := missing_layers(layers("auto"))):
        logger.error("sandbox=required, and this machine lacks %s", ", ".join(missing))
        sys.exit(_UNSEALED_EXIT)
    # Not when it is ready: that needs a broker, and lost jobs must not wait for one.
    _upkeep().start()


@signals.worker_shutting_down.connect  # type: ignore[untyped-decorator] # Celery has no types
def _on_shutting_down(**_: object) -> None:
    if not _drain.begun():
        _drain.begin(grace_seconds=_settings.stop_grace_seconds)


@signals.worker_shutdown.connect  # type: ignore[untyped-decorator] # Celery has no types
def _on_shutdown(**_: object) -> None:
    _upkeep().stop()
