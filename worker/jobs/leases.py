"""Jobs as workers see them: claim one, hold its lease, end it; and take over what others lost.

Every change is guarded by the lease id, the fencing token: a worker that was stopped and goes
on later can change nothing, whatever it believes.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import ColumnElement, select, update
from uuid6 import uuid7

from worker.jobs.database import Database, now
from worker.jobs.holder import is_gone
from worker.jobs.queue import SIZE_CLASSES, is_small, waiting_jobs
from worker.jobs.records import Failure, Job, JobStatus, ResultFile
from worker.jobs.rows import JOB_COLUMNS, as_json, change, job_of, remove
from worker.jobs.tables import artifacts, jobs
from worker.jobs.transitions import after_a_loss, after_the_end, held, idle, waiting


@dataclass(frozen=True, kw_only=True)
class Beat:
    """The answer to a heartbeat: whether the lease still holds, and whether to stop."""

    held: bool
    cancel_requested: bool


@dataclass(frozen=True, kw_only=True)
class Ended:
    """Whether the change was accepted, and the objects that nothing refers to any more."""

    accepted: bool
    unused: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A job that was taken from its worker: whether it waits again, and objects to discard."""

    job_id: str
    queued: bool
    unused: tuple[str, ...] = ()


class Leases:
    """The queue, from the side of the workers; all owners."""

    def __init__(
        self, database: Database, *, seconds: float, max_losses: int, small_bytes: int = 1 << 26
    ) -> None:
        self._database = database
        self._seconds = seconds
        self._max_losses = max_losses
        self._small_bytes = small_bytes

    def claim(self, job_id: str, *, holder: str) -> Job | None:
        """Take this queued job, or None if somebody else has it or it has ended."""
        return self._claim(jobs.c.id == job_id, holder=holder)

    def claim_next(self, *, holder: str, classes: Collection[str] = SIZE_CLASSES) -> Job | None:
        """Take the job of these size classes that is next, or None if nothing waits."""
        # Locked rows are about to be claimed by others: PostgreSQL steps over them.
        following = (
            waiting_jobs(jobs.c.id, classes=classes, small_bytes=self._small_bytes)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        return self._claim(jobs.c.id == following.scalar_subquery(), holder=holder)

    def _claim(self, wanted: ColumnElement[bool], *, holder: str) -> Job | None:
        with self._database.write() as connection:
            return change(
                connection,
                wanted,
                jobs.c.status == JobStatus.QUEUED,
                cause="claimed",
                status=JobStatus.RUNNING,
                stage="convert",
                progress=0.0,
                message="starting",
                attempt=jobs.c.attempt + 1,
                started_at=now(),
                lease_id=str(uuid7()),
                lease_until=now() + self._seconds,
                lease_holder=holder,
            )

    def renew(self, job: Job) -> bool:
        """Hold the lease for longer; False once it is lost."""
        with self._database.write() as connection:
            statement = update(jobs).where(*held(job)).values(lease_until=now() + self._seconds)
            return connection.execute(statement).rowcount == 1

    def progress(self, job: Job, *, stage: str, share: float, message: str) -> bool:
        """Record how far the job is (0..1), and renew; False once the lease is lost."""
        share = min(max(share, 0.0), 0.999)  # 1 says that it has succeeded
        with self._database.write() as connection:
            changed = change(
                connection,
                *held(job),
                cause="progress",
                stage=stage,
                progress=share,
                message=message,
                lease_until=now() + self._seconds,
            )
        return changed is not None

    def look(self, job: Job) -> Beat:
        """See whether the lease still holds and whether the job is to be canceled."""
        rows = self._database.read(select(jobs.c.cancel_requested).where(*held(job)))
        return Beat(held=bool(rows), cancel_requested=bool(rows and rows[0].cancel_requested))

    def note_memory(self, job: Job, peak_bytes: int) -> None:
        """Record how much memory the child of this attempt held, for an operator's graphs."""
        with self._database.write() as connection:
            connection.execute(
                update(jobs).where(*held(job)).values(peak_memory_bytes=peak_bytes)
            )

    def publish(
        self,
        job: Job,
        *,
        results: Mapping[str, ResultFile],
        summary: dict[str, Any],
        warnings: list[dict[str, str]],
        sandbox: dict[str, Any],
    ) -> Ended:
        """End a job with its result; refused once the lease is lost. It may be repeated."""
        files = {name: asdict(file) for name, file in results.items()}
        ended = self._end(
            job,
            cause="published",
            status=JobStatus.SUCCEEDED,
            stage="report",
            progress=1.0,
            message="",
            results=files,
            result_bytes=sum(file.bytes for file in results.values()),
            summary=summary,
            warnings=warnings,
            sandbox=sandbox,
            error=None,
        )
        return ended if ended.accepted else Ended(accepted=self._has_results(job, files))

    def _has_results(self, job: Job, files: dict[str, dict[str, Any]]) -> bool:
        """Whether these results are on record: the answer to an earlier write can get lost."""
        rows = self._database.read(select(jobs.c.results).where(jobs.c.id == job.id))
        return bool(files) and any(row.results == files for row in rows)

    def publish_inspection(self, job: Job, inspection: dict[str, Any]) -> Ended:
        """End an inspection: the model's row gets what was found, the job vanishes."""
        with self._database.write() as connection:
            ended = change(connection, *held(job), cause="published", **idle())
            if ended is None:
                return Ended(accepted=False)
            connection.execute(
                update(artifacts)
                .where(artifacts.c.id == job.model.id)
                .values(inspection=inspection, inspection_error=None)
            )
            return Ended(accepted=True, unused=remove(connection, ended))

    def fail(
        self, job: Job, failure: Failure, *, sandbox: dict[str, Any] | None = None
    ) -> Ended:
        """End a job with the reason why it has no result."""
        return self._end(
            job,
            cause=failure.code,
            status=JobStatus.FAILED,
            message=failure.detail,
            error=as_json(failure),
            sandbox=sandbox or {},
        )

    def canceled(self, job: Job) -> Ended:
        """End a job that a user canceled, after its process was stopped."""
        return self._end(
            job, cause="canceled", status=JobStatus.CANCELED, message="canceled by its owner"
        )

    def release(self, job: Job) -> bool:
        """Hand a job back unharmed, because this worker stops; that is no loss."""
        with self._database.write() as connection:
            back = change(
                connection,
                *held(job),
                cause="released",
                **waiting("its worker was stopped; waiting for another"),
            )
        return back is not None

    def lose(self, job: Job, *, cause: str) -> Taken:
        """Give up an attempt for no fault of the job: another one follows, up to the limit."""
        return self._take_from(job.id, job.lease_id, cause=cause)

    def reap(self) -> list[Taken]:
        """Queue again, or fail, what dead workers held."""
        expired = (jobs.c.lease_until < now()).label("expired")
        running = self._database.read(
            select(jobs.c.id, jobs.c.lease_id, jobs.c.lease_holder, expired).where(
                jobs.c.status == JobStatus.RUNNING
            )
        )
        return [
            self._take_from(row.id, row.lease_id, cause="lease_lost")
            for row in running
            if row.expired or is_gone(row.lease_holder)
        ]

    def queued(self, limit: int, *, classes: Collection[str] = SIZE_CLASSES) -> list[str]:
        """Give the ids of the jobs of these size classes that are next."""
        waiting = waiting_jobs(jobs.c.id, classes=classes, small_bytes=self._small_bytes)
        return [row.id for row in self._database.read(waiting.limit(limit))]

    def size_class(self, job_id: str) -> str:
        """Give the size class of a job; of one that is gone, small."""
        small = is_small(self._small_bytes).label("small")
        rows = self._database.read(select(small).where(jobs.c.id == job_id))
        return "small" if all(row.small for row in rows) else "large"

    def held_leases(self) -> set[str]:
        rows = self._database.read(
            select(jobs.c.lease_id).where(jobs.c.status == JobStatus.RUNNING)
        )
        return {row.lease_id for row in rows}

    def _end(self, job: Job, *, cause: str, **values: Any) -> Ended:  # noqa: ANN401 - columns
        with self._database.write() as connection:
            ended = change(connection, *held(job), cause=cause, **idle(), **values)
            if ended is None:
                return Ended(accepted=False)
            return Ended(accepted=True, unused=after_the_end(connection, ended))

    def _take_from(self, job_id: str, lease_id: str | None, *, cause: str) -> Taken:
        """Take a job from its holder, unless it moved on since we looked."""
        guard = [
            jobs.c.id == job_id,
            jobs.c.lease_id == lease_id,
            jobs.c.status == JobStatus.RUNNING,
        ]
        with self._database.write() as connection:
            row = connection.execute(
                select(*JOB_COLUMNS).where(*guard).with_for_update()
            ).one_or_none()
            if row is None:
                return Taken(job_id=job_id, queued=False)
            job = job_of(row)
            values = after_a_loss(job, max_losses=self._max_losses) | {"losses": job.losses + 1}
            changed = change(connection, *guard, cause=cause, **values)
            if changed is None or not changed.status.ended:
                return Taken(job_id=job_id, queued=changed is not None)
            unused = after_the_end(connection, changed)
            return Taken(job_id=job_id, queued=False, unused=unused)
