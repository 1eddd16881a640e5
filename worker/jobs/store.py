"""Jobs as their owners see them: submit, look, cancel, retry, delete."""

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    bindparam,
    func,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from worker.jobs.artifacts import insert_artifact, owned
from worker.jobs.database import Database, now
from worker.jobs.errors import FilesGone, IdempotencyConflict, NotFound, NotRetryable
from worker.jobs.paging import before, split_page
from worker.jobs.records import (
    Artifact,
    ArtifactKind,
    Created,
    Event,
    Idempotency,
    Job,
    JobStatus,
    NewArtifact,
    NewJob,
    Page,
)
from worker.jobs.rows import JOB_COLUMNS, artifact_of, change, event_of, job_of, remove
from worker.jobs.submission import insert_job
from worker.jobs.tables import artifacts, job_events, jobs
from worker.jobs.usage import Quota, book_job, check_stored

_KEY_LIFETIME_S = 24 * 3600
_NO_QUOTA = Quota()


class JobStore:
    """The record of all jobs. Every call names the owner; a foreign job does not exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ping(self) -> None:
        self._database.read(text("SELECT 1"))

    def create(
        self,
        job: NewJob,
        *,
        idempotency: Idempotency | None = None,
        quota: Quota = _NO_QUOTA,
    ) -> Created:
        """Record a job and the files that came with it, in one transaction.

        Raises:
            NotFound: a model or data set that the owner does not have.
            IdempotencyConflict: the key came before, with another request.
            QueueFull, QuotaExceeded, StorageQuotaExceeded: one job too many.
        """
        try:
            with self._database.write() as connection:
                earlier = _earlier(connection, job, idempotency)
                return earlier or _insert(connection, job, idempotency, quota)
        except IntegrityError:
            # On PostgreSQL two requests with one key can pass the look-up at the same time.
            with self._database.write() as connection:
                earlier = _earlier(connection, job, idempotency)
            if earlier is None:
                raise
            return earlier

    def get(self, owner_id: str, job_id: str) -> Job:
        rows = self._database.read(_ONE, {"owner_id": owner_id, "job_id": job_id})
        if not rows:
            raise NotFound("job", job_id)
        return job_of(rows[0])

    def page(
        self,
        owner_id: str,
        *,
        status: JobStatus | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """List jobs, newest first."""
        statement = (
            select(*JOB_COLUMNS)
            .where(*_visible(owner_id), *before(jobs.c.id, cursor))
            .order_by(jobs.c.id.desc())
            .limit(limit + 1)
        )
        if status is not None:
            statement = statement.where(jobs.c.status == status)
        rows = self._database.read(statement)
        items, next_cursor = split_page([job_of(row) for row in rows], limit)
        return Page(items=items, next_cursor=next_cursor)

    def counts(self) -> dict[JobStatus, int]:
        """Count the jobs of all owners by status."""
        statement = (
            select(jobs.c.status, func.count().label("number"))
            .where(jobs.c.kind == "compress")
            .group_by(jobs.c.status)
        )
        return {JobStatus(row.status): row.number for row in self._database.read(statement)}

    def events(self, owner_id: str, job_id: str, *, since: int = 0) -> list[Event]:
        """Give the changes of a job after version `since`, in order."""
        rows = self._database.read(
            select(job_events)
            .join(jobs, jobs.c.id == job_events.c.job_id)
            .where(*_visible(owner_id, job_id), job_events.c.version > since)
            .order_by(job_events.c.version)
        )
        if not rows:
            self.get(owner_id, job_id)
        return [event_of(row) for row in rows]

    def cancel(self, owner_id: str, job_id: str) -> Job:
        """Cancel a queued job at once; ask the worker of a running one to stop."""
        visible = _visible(owner_id, job_id)
        with self._database.write() as connection:
            ended = change(
                connection,
                *visible,
                jobs.c.status == JobStatus.QUEUED,
                cause="canceled",
                status=JobStatus.CANCELED,
                message="canceled before it started",
                cancel_requested=True,
                finished_at=now(),
            )
            asked = ended or change(
                connection,
                *visible,
                jobs.c.status == JobStatus.RUNNING,
                ~jobs.c.cancel_requested,
                cause="cancel_requested",
                cancel_requested=True,
                message="canceling",
            )
        return asked or self.get(owner_id, job_id)

    def retry(self, owner_id: str, job_id: str, *, quota: Quota = _NO_QUOTA) -> Job:
        """Queue a failed or canceled job again, under the same id.

        Raises:
            NotRetryable: it has another status.
            FilesGone: its model or data was deleted.
            QueueFull, QuotaExceeded: one job too many.
        """
        with self._database.write() as connection:
            job = _locked(connection, owner_id, job_id)
            if job.status not in (JobStatus.FAILED, JobStatus.CANCELED):
                raise NotRetryable(
                    f"only a failed or canceled job can be retried: this one is {job.status}"
                )
            _check_files(connection, job)
            book_job(connection, owner_id, quota)
            again = change(connection, jobs.c.id == job_id, cause="retried", **_afresh())
        return again or self.get(owner_id, job_id)

    def delete(self, owner_id: str, job_id: str) -> tuple[str, ...] | None:
        """Remove a job and give the objects to discard; None if it runs and must be stopped."""
        with self._database.write() as connection:
            job = _locked(connection, owner_id, job_id)
            if job.status is not JobStatus.RUNNING:
                return remove(connection, job)
            change(
                connection,
                jobs.c.id == job_id,
                cause="delete_requested",
                cancel_requested=True,
                delete_requested=True,
            )
            return None


def _visible(
    owner_id: str | BindParameter[str], job_id: str | BindParameter[str] | None = None
) -> list[ColumnElement[bool]]:
    conditions = [
        jobs.c.owner_id == owner_id,
        jobs.c.kind == "compress",
        ~jobs.c.delete_requested,
    ]
    return conditions if job_id is None else [jobs.c.id == job_id, *conditions]


# Polled more than all else: built once, because building it costs more than the read.
_ONE = select(*JOB_COLUMNS).where(*_visible(bindparam("owner_id"), bindparam("job_id")))


def _locked(connection: Connection, owner_id: str, job_id: str) -> Job:
    statement = select(*JOB_COLUMNS).where(*_visible(owner_id, job_id)).with_for_update()
    row = connection.execute(statement).one_or_none()
    if row is None:
        raise NotFound("job", job_id)
    return job_of(row)


def _afresh() -> dict[str, object]:
    return {
        "status": JobStatus.QUEUED,
        "stage": "queued",
        "progress": 0.0,
        "message": "",
        "losses": 0,
        "queued_at": now(),
        "started_at": None,
        "finished_at": None,
        "error": None,
        "sandbox": {},
        "cancel_requested": False,
    }


def _insert(
    connection: Connection, job: NewJob, idempotency: Idempotency | None, quota: Quota
) -> Created:
    book_job(connection, job.owner_id, quota)
    given = {
        "model": job.model,
        "calibration": job.calibration,
        "evaluation": job.evaluation,
        "partner": job.partner,
    }
    found = {role: _resolve(connection, job, role, what) for role, what in given.items()}
    recorded = insert_job(
        connection,
        owner_id=job.owner_id,
        kind="compress",
        name=job.name,
        inputs=job.inputs,
        recipe=job.recipe,
        idempotency=idempotency,
        **found,  # type: ignore[arg-type] # a job always has a model
    )
    check_stored(connection, job.owner_id, quota)
    kept = {artifact.key for artifact in found.values() if artifact is not None}
    unused = tuple(key for key in _carried(job) if key not in kept)
    return Created(job=recorded, replayed=False, unused=unused)


def _resolve(
    connection: Connection, job: NewJob, role: str, given: str | NewArtifact | None
) -> Artifact | None:
    if given is None:
        return None
    kind: ArtifactKind = "model" if role in ("model", "partner") else "dataset"
    if isinstance(given, NewArtifact):
        return insert_artifact(connection, job.owner_id, kind, given, of_job=True)
    wanted = select(artifacts).where(*owned(job.owner_id, kind, given)).with_for_update()
    row = connection.execute(wanted).one_or_none()
    if row is None:
        raise NotFound(kind, given)
    return artifact_of(row)


def _carried(job: NewJob) -> list[str]:
    given = (job.model, job.calibration, job.evaluation, job.partner)
    return [file.key for file in given if isinstance(file, NewArtifact)]


def _earlier(
    connection: Connection, job: NewJob, idempotency: Idempotency | None
) -> Created | None:
    """Find the job that an earlier request with the same key made."""
    if idempotency is None:
        return None
    same = [
        jobs.c.owner_id == job.owner_id,
        jobs.c.idempotency_key == idempotency.key,
    ]
    connection.execute(
        update(jobs)
        .where(*same, jobs.c.created_at < now() - _KEY_LIFETIME_S)
        .values(idempotency_key=None)
    )
    row = connection.execute(
        select(jobs.c.request_sha256, *JOB_COLUMNS).where(*same)
    ).one_or_none()
    if row is None:
        return None
    if row.request_sha256 != idempotency.request_sha256:
        raise IdempotencyConflict(
            f"the Idempotency-Key {idempotency.key[:64]!r} was used for another request"
        )
    return Created(job=job_of(row), replayed=True, unused=tuple(_carried(job)))


def _check_files(connection: Connection, job: Job) -> None:
    for used in job.files:
        wanted = select(artifacts.c.id).where(artifacts.c.id == used.id).with_for_update()
        if connection.execute(wanted).first() is None:
            raise FilesGone(f"{used.name[:80]!r}, which this job needs, was deleted")
