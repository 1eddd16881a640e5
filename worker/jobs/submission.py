"""A new row in the queue."""

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import Connection, insert
from uuid6 import uuid7

from worker.jobs.database import now
from worker.jobs.records import Artifact, Idempotency, Job, JobStatus
from worker.jobs.rows import JOB_COLUMNS, job_of, record_event
from worker.jobs.tables import jobs

_KNOWN = ("id", "name", "format", "bytes", "sha256", "key")


def insert_job(
    connection: Connection,
    *,
    owner_id: str,
    kind: Literal["compress", "inspect"],
    name: str,
    model: Artifact,
    calibration: Artifact | None = None,
    evaluation: Artifact | None = None,
    partner: Artifact | None = None,
    inputs: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    idempotency: Idempotency | None = None,
) -> Job:
    """Insert a queued job, and its first event."""
    statement = insert(jobs).values(
        **_fresh(),
        owner_id=owner_id,
        kind=kind,
        name=name,
        model_id=model.id,
        calibration_id=calibration.id if calibration else None,
        evaluation_id=evaluation.id if evaluation else None,
        partner_id=partner.id if partner else None,
        model=_known(model),
        calibration=_known(calibration),
        evaluation=_known(evaluation),
        partner=_known(partner),
        inputs=dict(inputs) if inputs is not None else None,
        recipe=dict(recipe or {}),
        work_bytes=sum(
            file.bytes for file in (model, calibration, evaluation, partner) if file
        ),
        idempotency_key=idempotency.key if idempotency else None,
        request_sha256=idempotency.request_sha256 if idempotency else None,
    )
    job = job_of(connection.execute(statement.returning(*JOB_COLUMNS)).one())
    record_event(connection, job, cause="created")
    return job


def _fresh() -> dict[str, Any]:
    return {
        "id": str(uuid7()),
        "status": JobStatus.QUEUED,
        "stage": "queued",
        "progress": 0.0,
        "message": "",
        "attempt": 0,
        "losses": 0,
        "version": 1,
        "created_at": now(),
        "queued_at": now(),
        "warnings": [],
        "sandbox": {},
        "results": {},
        "cancel_requested": False,
        "delete_requested": False,
    }


def _known(artifact: Artifact | None) -> dict[str, Any] | None:
    if artifact is None:
        return None
    return {name: getattr(artifact, name) for name in _KNOWN}
