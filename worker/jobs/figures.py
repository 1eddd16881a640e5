"""Figures of all jobs, for an operator's graphs."""

from dataclasses import dataclass

from sqlalchemy import func, select

from worker.jobs.database import Database, now
from worker.jobs.queue import is_small
from worker.jobs.records import JobStatus
from worker.jobs.tables import job_events, jobs

_SPAN_S = 3600


@dataclass(frozen=True, kw_only=True)
class QueueFigures:
    """How many wait in one size class, and how long the first of them has."""

    depth: int
    oldest_seconds: float


class Figures:
    """Asked at each scrape: of the queue as it is, and of what ended in the last hour."""

    def __init__(self, database: Database, *, small_bytes: int) -> None:
        self._database = database
        self._small_bytes = small_bytes

    def queue(self) -> dict[str, QueueFigures]:
        """Give the figures of each size class in which something waits."""
        small = is_small(self._small_bytes).label("small")
        waited = (now() - func.min(jobs.c.queued_at)).label("oldest")
        rows = self._database.read(
            select(small, func.count().label("depth"), waited)
            .where(jobs.c.status == JobStatus.QUEUED)
            .group_by(small)
        )
        return {
            "small" if row.small else "large": QueueFigures(
                depth=row.depth, oldest_seconds=row.oldest
            )
            for row in rows
        }

    def endings(self) -> dict[str, int]:
        """Count how attempts ended in the last hour: published, or the code of the failure."""
        rows = self._database.read(
            select(job_events.c.cause, func.count().label("number"))
            .where(job_events.c.at > now() - _SPAN_S)
            .where(job_events.c.cause.not_in(["created", "claimed", "progress", "retried"]))
            .group_by(job_events.c.cause)
        )
        return {row.cause: row.number for row in rows}

    def child_memory(self) -> dict[str, float]:
        """Give mean and maximum of the bytes that children of the last hour's jobs held."""
        peak = jobs.c.peak_memory_bytes
        (row,) = self._database.read(
            select(func.avg(peak).label("mean"), func.max(peak).label("max")).where(
                jobs.c.finished_at > now() - _SPAN_S
            )
        )
        return {} if row.max is None else {"mean": float(row.mean), "max": float(row.max)}

    def stage_seconds(self) -> dict[str, float]:
        """Give the mean seconds that a stage took, over the attempts of the last hour."""
        began = func.min(job_events.c.at)
        spans = (
            select(job_events.c.stage, (func.max(job_events.c.at) - began).label("seconds"))
            .where(job_events.c.at > now() - _SPAN_S, job_events.c.status == JobStatus.RUNNING)
            .group_by(job_events.c.job_id, job_events.c.attempt, job_events.c.stage)
            .subquery()
        )
        rows = self._database.read(
            select(spans.c.stage, func.avg(spans.c.seconds).label("mean")).group_by(
                spans.c.stage
            )
        )
        return {row.stage: float(row.mean) for row in rows}
