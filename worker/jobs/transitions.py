"""What the columns of a job become when it leaves its worker, and what is due then."""

from typing import Any

from sqlalchemy import ColumnElement, Connection, update

from worker.jobs.database import now
from worker.jobs.records import Failure, Job, JobStatus
from worker.jobs.rows import as_json, remove
from worker.jobs.tables import artifacts, jobs


def held(job: Job) -> list[ColumnElement[bool]]:
    """Guard of every change by a holder: its lease is the current one."""
    return [
        jobs.c.id == job.id,
        jobs.c.lease_id == job.lease_id,
        jobs.c.status == JobStatus.RUNNING,
    ]


def _no_lease() -> dict[str, Any]:
    return {"lease_id": None, "lease_until": None, "lease_holder": None}


def idle() -> dict[str, Any]:
    """Columns of a job that has ended."""
    return _no_lease() | {"finished_at": now()}


def waiting(message: str) -> dict[str, Any]:
    """Columns of a job that is queued again."""
    return _no_lease() | {
        "status": JobStatus.QUEUED,
        "stage": "queued",
        "progress": 0.0,
        "message": message,
        "started_at": None,
    }


def after_a_loss(job: Job, *, max_losses: int) -> dict[str, Any]:
    """Columns of a job whose worker was lost: it waits again, or that was the last time."""
    if job.cancel_requested:
        return idle() | {"status": JobStatus.CANCELED, "message": "canceled by its owner"}
    if job.losses + 1 < max_losses:
        return waiting("its worker was lost; waiting for another")
    failure = Failure(
        code="worker_lost",
        detail=f"the worker that ran this job was lost {max_losses} times",
        hint="retry the job; if it happens again, the host may be short of memory",
        stage=job.stage,
        cause="worker_lost",
    )
    return idle() | {
        "status": JobStatus.FAILED,
        "message": failure.detail,
        "error": as_json(failure),
    }


def after_the_end(connection: Connection, job: Job) -> tuple[str, ...]:
    """Do what is due once a job has ended: an inspection tells its model; both may vanish."""
    if job.kind == "inspect" and not job.delete_requested:
        error = job.error or as_json(Failure(code="canceled", detail="canceled"))
        connection.execute(
            update(artifacts)
            .where(artifacts.c.id == job.model.id)
            .values(inspection_error=error)
        )
    if job.kind == "inspect" or job.delete_requested:
        return remove(connection, job)
    return ()
