"""What is kept no longer: uploads, results, rows, each after its own time."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, and_, delete, exists, or_, select, update

from worker.jobs.database import Database, now
from worker.jobs.records import JobStatus
from worker.jobs.rows import JOB_COLUMNS, job_of, remove, remove_artifact
from worker.jobs.tables import artifacts, jobs, upload_parts, usage

_DAY_S = 24 * 3600
_USAGE_DAYS = 40
_ENDED = jobs.c.status.in_([JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED])


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Days for which things are kept; 0 is for ever."""

    uploads_days: float = 0
    results_days: float = 0
    jobs_days: float = 0


@dataclass(frozen=True, kw_only=True)
class Expired:
    """One thing whose time is over; `bytes` is the room it takes, where that is known."""

    what: str  # job, result, upload
    id: str
    owner_id: str
    bytes: int


class Retention:
    """All owners' records, by age."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def due(self, keeping: Keeping) -> list[Expired]:
        """What is to go: whole jobs, then results, then uploads that nothing waits for."""
        return [
            Expired(what=what, id=row.id, owner_id=row.owner_id, bytes=row.bytes)
            for what, statement in _due(keeping).items()
            for row in self._database.read(statement)
        ]

    def drop(self, expired: Expired) -> tuple[str, ...]:
        """Remove one of these, if it is still due; give the objects to discard."""
        with self._database.write() as connection:
            return {"job": _drop_job, "result": _drop_result, "upload": _drop_upload}[
                expired.what
            ](connection, expired.id)

    def forget_usage(self) -> None:
        """Drop accounts of days long past."""
        with self._database.write() as connection:
            today = now() / _DAY_S
            connection.execute(delete(usage).where(usage.c.day < today - _USAGE_DAYS))

    def referenced(self) -> Iterator[str]:
        """The key of every object that a record refers to."""
        for keys in (select(artifacts.c.key).distinct(), select(upload_parts.c.key)):
            for row in self._database.read(keys):
                yield row.key
        for row in self._database.read(select(jobs.c.results)):
            yield from (file["key"] for file in row.results.values())


def _due(keeping: Keeping) -> dict[str, Select[Any]]:
    found: dict[str, Select[Any]] = {}
    if keeping.jobs_days:
        found["job"] = select(
            jobs.c.id, jobs.c.owner_id, jobs.c.result_bytes.label("bytes")
        ).where(_ENDED, jobs.c.finished_at < now() - keeping.jobs_days * _DAY_S)
    if keeping.results_days:
        found["result"] = select(
            jobs.c.id, jobs.c.owner_id, jobs.c.result_bytes.label("bytes")
        ).where(
            _ENDED,
            jobs.c.result_bytes > 0,
            jobs.c.finished_at < now() - keeping.results_days * _DAY_S,
        )
    if keeping.uploads_days:
        found["upload"] = select(artifacts.c.id, artifacts.c.owner_id, artifacts.c.bytes).where(
            artifacts.c.created_at < now() - keeping.uploads_days * _DAY_S, ~_is_needed()
        )
    return found


def _is_needed() -> Any:  # noqa: ANN401 - an EXISTS
    """Whether a waiting or running job has this artifact."""
    uses = or_(
        jobs.c.model_id == artifacts.c.id,
        jobs.c.calibration_id == artifacts.c.id,
        jobs.c.evaluation_id == artifacts.c.id,
        jobs.c.partner_id == artifacts.c.id,
    )
    return exists().where(and_(uses, ~_ENDED))


def _drop_job(connection: Connection, job_id: str) -> tuple[str, ...]:
    wanted = select(*JOB_COLUMNS).where(jobs.c.id == job_id, _ENDED).with_for_update()
    row = connection.execute(wanted).one_or_none()
    return () if row is None else remove(connection, job_of(row))


def _drop_result(connection: Connection, job_id: str) -> tuple[str, ...]:
    wanted = select(*JOB_COLUMNS).where(jobs.c.id == job_id, _ENDED).with_for_update()
    row = connection.execute(wanted).one_or_none()
    if row is None:
        return ()
    gone = update(jobs).where(jobs.c.id == job_id).values(results={}, result_bytes=0)
    connection.execute(gone)
    return tuple(file.key for file in job_of(row).results.values())


def _drop_upload(connection: Connection, artifact_id: str) -> tuple[str, ...]:
    return remove_artifact(connection, artifacts.c.id == artifact_id, ~_is_needed())
