"""What owners have used, and the limits on it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import ceil

from sqlalchemy import Connection, Executable, Select, func, select
from sqlalchemy.dialects import postgresql, sqlite

from worker.jobs.database import Database
from worker.jobs.errors import QueueFull, QuotaExceeded, StorageQuotaExceeded
from worker.jobs.records import JobStatus
from worker.jobs.tables import artifacts, jobs, uploads, usage

_DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Quota:
    """Limits of one owner, and of the queue of all; 0 is none."""

    stored_bytes: int = 0
    queued_jobs: int = 0
    jobs_per_day: int = 0
    cpu_seconds_per_day: float = 0
    all_queued_jobs: int = 0


@dataclass(frozen=True, kw_only=True)
class Used:
    """What an owner has used; a day is one of UTC."""

    stored_bytes: int
    queued_jobs: int
    jobs_today: int
    cpu_seconds_today: float


class UsageStore:
    """The account of each owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, owner_id: str) -> Used:
        today = self._database.read(
            select(usage.c.jobs, usage.c.cpu_seconds).where(
                usage.c.owner_id == owner_id, usage.c.day == _today()
            )
        )
        queued = self._database.read(_queued().where(jobs.c.owner_id == owner_id))
        return Used(
            stored_bytes=self.stored_bytes(owner_id),
            queued_jobs=queued[0][0],
            jobs_today=today[0].jobs if today else 0,
            cpu_seconds_today=today[0].cpu_seconds if today else 0.0,
        )

    def stored_bytes(self, owner_id: str) -> int:
        """Bytes of an owner's files, and those that its unfinished uploads were promised."""
        return sum(self._database.read(part)[0][0] for part in _stored(owner_id))

    def spend(self, owner_id: str, cpu_seconds: float) -> None:
        """Book processor time to the owner of a job."""
        with self._database.write() as connection:
            _book(connection, owner_id, cpu_seconds=cpu_seconds)


def book_job(connection: Connection, owner_id: str, quota: Quota) -> None:
    """Count a job that is about to wait.

    Raises:
        QueueFull, QuotaExceeded: it may not.
    """
    # First: it locks the owner's row, so that two requests cannot both be the last one.
    made, cpu_seconds = _book(connection, owner_id, jobs=1)
    if quota.jobs_per_day and made > quota.jobs_per_day:
        raise QuotaExceeded(f"{quota.jobs_per_day:,} jobs a day", retry_after=_until_tomorrow())
    if quota.cpu_seconds_per_day and cpu_seconds >= quota.cpu_seconds_per_day:
        limit = f"{quota.cpu_seconds_per_day:,.0f} processor seconds a day"
        raise QuotaExceeded(limit, retry_after=_until_tomorrow())
    if quota.queued_jobs:
        mine = connection.execute(_queued().where(jobs.c.owner_id == owner_id)).scalar_one()
        if mine >= quota.queued_jobs:
            raise QuotaExceeded(f"{quota.queued_jobs:,} waiting jobs", retry_after=30)
    if quota.all_queued_jobs:
        waiting = connection.execute(_queued()).scalar_one()
        if waiting >= quota.all_queued_jobs:
            raise QueueFull("the queue of this service is full", retry_after=30)


def check_stored(connection: Connection, owner_id: str, quota: Quota) -> None:
    """Refuse what was just recorded if it is more than the owner may store."""
    if not quota.stored_bytes:
        return
    stored = sum(connection.execute(part).scalar_one() for part in _stored(owner_id))
    if stored > quota.stored_bytes:
        raise StorageQuotaExceeded(quota.stored_bytes)


def _queued() -> Select[int]:
    return (
        select(func.count())
        .select_from(jobs)
        .where(jobs.c.status == JobStatus.QUEUED, jobs.c.kind == "compress")
    )


def _stored(owner_id: str) -> list[Select[int]]:
    """Statements whose sums are what an owner stores: uploads, results, uploads on the way."""
    files = (
        select(artifacts.c.key, artifacts.c.bytes)
        .where(artifacts.c.owner_id == owner_id)
        .distinct()
        .subquery()
    )
    open_uploads = (uploads.c.owner_id == owner_id, uploads.c.artifact_id.is_(None))
    return [
        select(func.coalesce(func.sum(files.c.bytes), 0)),
        select(func.coalesce(func.sum(jobs.c.result_bytes), 0)).where(
            jobs.c.owner_id == owner_id
        ),
        select(func.coalesce(func.sum(uploads.c.bytes), 0)).where(*open_uploads),
    ]


def _book(
    connection: Connection, owner_id: str, *, jobs: int = 0, cpu_seconds: float = 0.0
) -> tuple[int, float]:
    """Add to an owner's day; give what the day then has."""
    values = {"owner_id": owner_id, "day": _today(), "jobs": jobs, "cpu_seconds": cpu_seconds}
    more = {"jobs": usage.c.jobs + jobs, "cpu_seconds": usage.c.cpu_seconds + cpu_seconds}
    same = ["owner_id", "day"]
    statement: Executable
    if connection.dialect.name == "postgresql":
        statement = (
            postgresql.insert(usage)
            .values(values)
            .on_conflict_do_update(index_elements=same, set_=more)
            .returning(usage.c.jobs, usage.c.cpu_seconds)
        )
    else:
        statement = (
            sqlite.insert(usage)
            .values(values)
            .on_conflict_do_update(index_elements=same, set_=more)
            .returning(usage.c.jobs, usage.c.cpu_seconds)
        )
    row = connection.execute(statement).one()
    return int(row.jobs), float(row.cpu_seconds)


def _today() -> int:
    """Days since 1970."""
    return datetime.now(UTC).toordinal() - datetime(1970, 1, 1, tzinfo=UTC).toordinal()


def _until_tomorrow() -> int:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + _DAY
    return ceil((midnight - now).total_seconds())
