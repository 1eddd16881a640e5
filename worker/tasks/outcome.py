"""How an attempt ended, put on record: every write is refused once the lease is lost."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy.exc import DBAPIError

from worker.isolation import Cause, Ended, UnsafeFile, open_result
from worker.jobs import Ended as Recorded
from worker.jobs import Failure, Job, ResultFile
from worker.services import Services
from worker.tasks.heartbeat import CANCELED, DRAINING
from worker.tasks.summary import Unreadable, summarize

_PATIENCE_SECONDS = 60

logger = logging.getLogger(__name__)


def record_outcome(services: Services, job: Job, ended: Ended, *, folder: Path) -> None:
    """Publish, fail, cancel or hand back a job whose child has ended."""
    if ended.stderr:
        logger.info("job %s: its process said:\n%s", job.id, ended.stderr)
    if ended.stopped_because is not None:
        _stopped(services, job, ended.stopped_because)
    elif ended.cause is Cause.KILLED and job.losses + 1 < services.settings.max_kills:
        # No fault of the model: the host was short of memory, or an operator did it.
        services.discard(services.leases.lose(job, cause="killed").unused)
    elif ended.cause is Cause.DONE and ended.result is not None:
        _succeeded(services, job, ended.result, ended=ended, folder=folder)
    else:
        _failed(services, job, ended)


def fail(services: Services, job: Job, failure: Failure, *, ended: Ended | None = None) -> None:
    layers = dict(ended.layers) if ended else {}
    _finish(services, job, services.leases.fail(job, failure, sandbox=layers))


def _stopped(services: Services, job: Job, reason: str) -> None:
    if reason == CANCELED:
        _finish(services, job, services.leases.canceled(job))
    elif reason == DRAINING:
        services.leases.release(job)
    else:
        logger.warning("job %s: stopped, %s", job.id, reason)


def _failed(services: Services, job: Job, ended: Ended) -> None:
    error = ended.error or {}
    failure = Failure(
        code=str(error.get("code", "internal_error")),
        detail=str(error.get("message", "the job ended without a result")),
        hint=error.get("hint"),
        stage=error.get("stage") or ended.stage,
        errors=tuple(error.get("errors") or ()),
        cause=str(ended.cause),
    )
    fail(services, job, failure, ended=ended)


def _succeeded(
    services: Services, job: Job, result: Mapping[str, Any], *, ended: Ended, folder: Path
) -> None:
    try:
        if job.kind == "inspect":
            inspection = dict(result["inspection"])
            _finish(services, job, services.leases.publish_inspection(job, inspection))
            return
        summary, warnings = summarize(result["report"])
        results = _store(services, job, result.get("files", []), folder=folder)
    except (KeyError, Unreadable, UnsafeFile) as error:
        logger.exception("job %s: its result is not one", job.id)
        detail = f"the process that handled the model left an unusable result: {error}"
        failure = Failure(code="result_refused", detail=detail, cause="unusable_result")
        fail(services, job, failure, ended=ended)
        return
    published = _patiently(
        lambda: services.leases.publish(
            job, results=results, summary=summary, warnings=warnings, sandbox=dict(ended.layers)
        )
    )
    _finish(services, job, published, stored=True)


def _patiently(write: Callable[[], Recorded]) -> Recorded:
    """Try for a minute: an hour's work is not thrown away because the database restarts."""
    patience = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return write()
        except DBAPIError as error:
            if time.monotonic() > patience:
                raise
            logger.warning("the database is away: %s", error.orig)
            time.sleep(1)


def _store(
    services: Services, job: Job, files: list[str], *, folder: Path
) -> dict[str, ResultFile]:
    """Keep the files of a result, each under its bare name."""
    stored = {}
    for path in files:
        name = PurePosixPath(path).name
        with open_result(folder, path) as file:
            kept = services.objects.put(f"{results_prefix(job)}/{name}", file)
        stored[name] = ResultFile(key=kept.key, bytes=kept.bytes, sha256=kept.sha256)
    return stored


def results_prefix(job: Job) -> str:
    """Where this attempt puts its files; no other one writes there, not even a late one."""
    return f"{job.owner_id}/results/{job.id}/{job.attempt}-{job.lease_id}"


def _finish(services: Services, job: Job, recorded: Recorded, *, stored: bool = False) -> None:
    services.discard(recorded.unused)
    if recorded.accepted:
        return
    logger.warning("job %s: the outcome of attempt %d came too late", job.id, job.attempt)
    if stored:
        services.objects.delete_prefix(results_prefix(job))
