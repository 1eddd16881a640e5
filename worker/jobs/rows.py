"""Rows to records, and the only two ways a job's row changes: `change` and `remove`."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, or_, select, update

from worker.jobs.database import moment, now
from worker.jobs.records import (
    Artifact,
    Event,
    Failure,
    Job,
    JobArtifact,
    JobStatus,
    ResultFile,
)
from worker.jobs.tables import artifacts, job_events, jobs

_TIMES = ("created_at", "started_at", "finished_at")
_PRIVATE = (
    "queued_at",
    "work_bytes",
    "model_id",
    "calibration_id",
    "evaluation_id",
    "partner_id",
    "lease_until",
    "lease_holder",
    "idempotency_key",
    "request_sha256",
    "result_bytes",
    "peak_memory_bytes",
)
JOB_COLUMNS = [column for column in jobs.c if column.name not in _PRIVATE]


def job_of(row: Row[Any]) -> Job:
    values = {column.name: row._mapping[column] for column in JOB_COLUMNS}
    values |= {name: moment(values[name]) for name in _TIMES if values[name] is not None}
    values["status"] = JobStatus(values["status"])
    for name in ("model", "calibration", "evaluation", "partner"):
        if values[name] is not None:
            values[name] = JobArtifact(**values[name])
    values["results"] = {name: ResultFile(**file) for name, file in values["results"].items()}
    return Job(**values)


def artifact_of(row: Row[Any]) -> Artifact:
    values = dict(row._mapping)
    return Artifact(**(values | {"created_at": moment(values["created_at"])}))


def event_of(row: Row[Any]) -> Event:
    values = dict(row._mapping)
    return Event(
        **(values | {"at": moment(values["at"]), "status": JobStatus(values["status"])})
    )


def as_json(failure: Failure) -> dict[str, Any]:
    return asdict(failure) | {"errors": list(failure.errors)}


def change(
    connection: Connection,
    *guard: ColumnElement[bool],
    cause: str,
    **values: Any,  # noqa: ANN401 - column values
) -> Job | None:
    """Change the one job that `guard` selects and append the event; None if it selects none."""
    statement = update(jobs).where(*guard).values(version=jobs.c.version + 1, **values)
    row = connection.execute(statement.returning(*JOB_COLUMNS)).one_or_none()
    if row is None:
        return None
    job = job_of(row)
    record_event(connection, job, cause=cause)
    return job


def record_event(connection: Connection, job: Job, *, cause: str) -> None:
    connection.execute(
        insert(job_events).values(
            job_id=job.id,
            version=job.version,
            at=now(),
            status=job.status,
            stage=job.stage,
            progress=job.progress,
            message=job.message,
            attempt=job.attempt,
            cause=cause,
        )
    )


def remove(connection: Connection, job: Job) -> tuple[str, ...]:
    """Remove a job, its events and what came with it; give the objects nothing refers to."""
    connection.execute(delete(job_events).where(job_events.c.job_id == job.id))
    connection.execute(delete(jobs).where(jobs.c.id == job.id))
    keys = [file.key for file in job.results.values()]
    for used in job.files:
        keys += _remove_companion(connection, used.id)
    return tuple(keys)


def _remove_companion(connection: Connection, artifact_id: str) -> tuple[str, ...]:
    """Remove an artifact that came with a job, unless another job has it too."""
    users = or_(
        jobs.c.model_id == artifact_id,
        jobs.c.calibration_id == artifact_id,
        jobs.c.evaluation_id == artifact_id,
        jobs.c.partner_id == artifact_id,
    )
    if connection.execute(select(jobs.c.id).where(users).limit(1)).first() is not None:
        return ()
    return remove_artifact(connection, artifacts.c.id == artifact_id, artifacts.c.of_job)


def remove_artifact(connection: Connection, *guard: ColumnElement[bool]) -> tuple[str, ...]:
    """Remove one artifact; give its object's key if no other artifact shares it."""
    removed = connection.execute(
        delete(artifacts).where(*guard).returning(artifacts.c.key)
    ).one_or_none()
    if removed is None:
        return ()
    # Locked, so that a creation that is about to share this object goes first or sees it gone.
    shared = select(artifacts.c.id).where(artifacts.c.key == removed.key).with_for_update()
    return () if connection.execute(shared).first() else (removed.key,)
