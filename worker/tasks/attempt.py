"""One attempt at one job: claim it, run its child, put the outcome on record."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from worker.isolation import Cause, Ended, Request, run_child
from worker.jobs import Failure, Job, JobArtifact, current_holder
from worker.logs import about
from worker.objects import ObjectMissing
from worker.services import Services
from worker.shelf import Shelf, shelf_key
from worker.tasks.heartbeat import Heartbeat
from worker.tasks.limits import limits_for
from worker.tasks.outcome import fail, record_outcome
from worker.tasks.scratch import scratch_folder
from worker.tracing import NO_CARRIER, Carrier, note, span_of_attempt

logger = logging.getLogger(__name__)


CACHE = "cache"


def never() -> bool:
    return False


def run_job(
    services: Services,
    job_id: str,
    *,
    slot: int | None = None,
    draining: Callable[[], bool] = never,
) -> None:
    """Run this queued job to its end; nothing happens if another worker has it."""
    job = services.leases.claim(job_id, holder=current_holder())
    if job is not None:
        with about(job_id=job.id):
            _attempt(services, job, slot=slot, draining=draining)


def run_next(
    services: Services,
    *,
    slot: int | None = None,
    draining: Callable[[], bool] = never,
    asked_by: Mapping[str, Carrier] | None = None,
) -> str | None:
    """Run the job that is next to its end; its id, or None if nothing waits.

    `draining` tells that this worker stops and its job is to be handed back; `slot` that no
    other job of this host has; `asked_by` which request is known to have asked for a job.
    """
    classes = services.settings.size_classes
    job = services.leases.claim_next(holder=current_holder(), classes=classes)
    if job is None:
        return None
    with about(job_id=job.id):
        origin = (asked_by or {}).get(job.id, NO_CARRIER)
        _attempt(services, job, slot=slot, draining=draining, asked_by=origin)
    return job.id


def _attempt(
    services: Services,
    job: Job,
    *,
    slot: int | None,
    draining: Callable[[], bool],
    asked_by: Carrier = NO_CARRIER,
) -> None:
    with span_of_attempt(job.id, attempt=job.attempt, kind=job.kind, asked_by=asked_by):
        _supervise(services, job, slot=slot, draining=draining)


def _supervise(
    services: Services, job: Job, *, slot: int | None, draining: Callable[[], bool]
) -> None:
    logger.info("attempt %d", job.attempt)
    heartbeat = Heartbeat(
        services.leases,
        job,
        renew_seconds=services.settings.renew_seconds,
        draining=draining,
    )
    try:
        with heartbeat, scratch_folder(services.settings.scratch, job) as folder:
            _forget_earlier_attempts(services, job)
            shelf = Shelf(services.settings.cache, services.settings.cache_bytes)
            shelf.lend(_key(job), folder / CACHE)
            ended = _run(services, job, folder=folder, heartbeat=heartbeat, slot=slot)
            note(cause=ended.cause)
            _book(services, job, ended)
            if ended.cause is Cause.DONE:
                shelf.take_back(_key(job), folder / CACHE)
            record_outcome(services, job, ended, folder=folder)
    except ObjectMissing:
        failure = Failure(code="files_gone", detail="the model or data of this job was deleted")
        fail(services, job, failure)
    except Exception:
        # A disk, a store or a database that failed: another attempt may do better.
        logger.exception("attempt %d is lost", job.attempt)
        services.discard(services.leases.lose(job, cause="attempt_lost").unused)


def _book(services: Services, job: Job, ended: Ended) -> None:
    """Charge the owner; an account that cannot be reached costs nobody a result."""
    try:
        services.usage.spend(job.owner_id, ended.cpu_seconds)
        services.leases.note_memory(job, ended.peak_memory_bytes)
    except DBAPIError as error:
        logger.warning("what the job of %s used is not booked: %s", job.owner_id, error.orig)


def _key(job: Job) -> str:
    """What jobs have in common that may use each other's findings."""
    files = (job.model, job.calibration, job.evaluation, job.partner)
    return shelf_key(job.owner_id, [file.sha256 if file else "" for file in files])


def _forget_earlier_attempts(services: Services, job: Job) -> None:
    """Delete what they stored and could not publish."""
    if job.attempt > 1:
        services.objects.delete_prefix(f"{job.owner_id}/results/{job.id}")


def _run(
    services: Services, job: Job, *, folder: Path, heartbeat: Heartbeat, slot: int | None
) -> Ended:
    request = Request(
        kind=job.kind,
        model=str(_file(services, job.model, folder=folder)),
        name=job.model.name,
        recipe=job.recipe or None,
        calibration=_optional(services, job.calibration, folder=folder),
        evaluation=_optional(services, job.evaluation, folder=folder),
        partner=_optional(services, job.partner, folder=folder),
        inputs=job.inputs,
        cache=CACHE,
    )
    return run_child(
        request,
        folder,
        limits=limits_for(job, services.settings),
        sandbox=services.settings.sandbox,
        on_message=heartbeat.say,
        stop=lambda: heartbeat.reason,
        slot=slot,
        measuring_lock=services.settings.measuring_lock,
    )


def _file(services: Services, artifact: JobArtifact, *, folder: Path) -> Path:
    """The file where it lies, which the child can only read; or a copy of a remote one."""
    local = services.objects.local_path(artifact.key)
    if local is not None:
        services.objects.stat(artifact.key)
        return local
    copy = folder / f"input-{artifact.id}"
    services.objects.fetch(artifact.key, copy)
    return copy


def _optional(services: Services, artifact: JobArtifact | None, *, folder: Path) -> str | None:
    return None if artifact is None else str(_file(services, artifact, folder=folder))
