"""Uploaded models and data sets."""

from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, insert, or_, select, update
from uuid6 import uuid7

from worker.jobs.database import Database, now
from worker.jobs.errors import InUse, NotFound
from worker.jobs.paging import before, split_page
from worker.jobs.records import Artifact, ArtifactKind, Job, JobStatus, NewArtifact
from worker.jobs.rows import (
    JOB_COLUMNS,
    artifact_of,
    change,
    job_of,
    remove,
    remove_artifact,
)
from worker.jobs.submission import insert_job
from worker.jobs.tables import artifacts, jobs, uploads
from worker.jobs.usage import Quota, check_stored

_NO_QUOTA = Quota()


@dataclass(frozen=True, kw_only=True)
class CreatedArtifact:
    """`inspect_job` is to be enqueued; `unused` are objects that nothing refers to."""

    artifact: Artifact
    inspect_job: str | None
    unused: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ArtifactPage:
    """Artifacts, newest first, and the cursor of the next page."""

    items: list[Artifact]
    next_cursor: str | None


class ArtifactStore:
    """Models and data sets of their owners; a foreign one does not exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        owner_id: str,
        kind: ArtifactKind,
        file: NewArtifact,
        *,
        quota: Quota = _NO_QUOTA,
        upload_id: str | None = None,
    ) -> CreatedArtifact:
        """Record a stored file; a model also gets the job that inspects it.

        `upload_id` is the resumable upload that this completes: it does so once.

        Raises:
            StorageQuotaExceeded: it is more than the owner may store.
            NotFound: another request has completed the upload, or it is forgotten.
        """
        with self._database.write() as connection:
            artifact = insert_artifact(connection, owner_id, kind, file, of_job=False)
            if upload_id is not None:
                open_one = (uploads.c.id == upload_id, uploads.c.artifact_id.is_(None))
                mine = update(uploads).where(*open_one).values(artifact_id=artifact.id)
                if connection.execute(mine).rowcount != 1:
                    raise NotFound("open upload", upload_id)
            check_stored(connection, owner_id, quota)
            inspect_job = None
            if kind == "model":
                inspect_job = insert_job(
                    connection,
                    owner_id=owner_id,
                    kind="inspect",
                    name=file.name,
                    model=artifact,
                ).id
        unused = () if artifact.key == file.key else (file.key,)
        return CreatedArtifact(artifact=artifact, inspect_job=inspect_job, unused=unused)

    def get(self, owner_id: str, kind: ArtifactKind, artifact_id: str) -> Artifact:
        rows = self._database.read(select(artifacts).where(*owned(owner_id, kind, artifact_id)))
        if not rows:
            raise NotFound(kind, artifact_id)
        return artifact_of(rows[0])

    def page(
        self, owner_id: str, kind: ArtifactKind, *, limit: int = 50, cursor: str | None = None
    ) -> ArtifactPage:
        """List what was uploaded by itself, newest first."""
        rows = self._database.read(
            select(artifacts)
            .where(artifacts.c.owner_id == owner_id, artifacts.c.kind == kind)
            .where(~artifacts.c.of_job, *before(artifacts.c.id, cursor))
            .order_by(artifacts.c.id.desc())
            .limit(limit + 1)
        )
        items, next_cursor = split_page([artifact_of(row) for row in rows], limit)
        return ArtifactPage(items=items, next_cursor=next_cursor)

    def delete(self, owner_id: str, kind: ArtifactKind, artifact_id: str) -> tuple[str, ...]:
        """Remove an artifact and give the objects to discard.

        Raises:
            InUse: while a queued or running job needs it.
        """
        with self._database.write() as connection:
            wanted = select(artifacts).where(*owned(owner_id, kind, artifact_id))
            if connection.execute(wanted.with_for_update()).first() is None:
                raise NotFound(kind, artifact_id)
            users = _active_users(connection, artifact_id)
            blocking = tuple(job.id for job in users if job.kind == "compress")
            if blocking:
                raise InUse(
                    f"{len(blocking)} queued or running job(s) need this {kind}",
                    job_ids=blocking,
                )
            for job in users:
                _give_up_inspection(connection, job)
            return remove_artifact(connection, artifacts.c.id == artifact_id)


def owned(owner_id: str, kind: ArtifactKind, artifact_id: str) -> list[ColumnElement[bool]]:
    return [
        artifacts.c.id == artifact_id,
        artifacts.c.owner_id == owner_id,
        artifacts.c.kind == kind,
        ~artifacts.c.of_job,
    ]


def insert_artifact(
    connection: Connection,
    owner_id: str,
    kind: ArtifactKind,
    file: NewArtifact,
    *,
    of_job: bool,
) -> Artifact:
    """Record a file; where the owner has the same content already, with that object's key."""
    twin = connection.execute(
        select(artifacts.c.key)
        .where(artifacts.c.owner_id == owner_id, artifacts.c.sha256 == file.sha256)
        .limit(1)
        .with_for_update()
    ).first()
    values = asdict(file) | {"key": twin.key if twin else file.key}
    row = connection.execute(
        insert(artifacts)
        .values(
            id=str(uuid7()),
            owner_id=owner_id,
            kind=kind,
            of_job=of_job,
            created_at=now(),
            **values,
        )
        .returning(artifacts)
    ).one()
    return artifact_of(row)


def _active_users(connection: Connection, artifact_id: str) -> list[Job]:
    uses = or_(
        jobs.c.model_id == artifact_id,
        jobs.c.calibration_id == artifact_id,
        jobs.c.evaluation_id == artifact_id,
        jobs.c.partner_id == artifact_id,
    )
    active = jobs.c.status.in_([JobStatus.QUEUED, JobStatus.RUNNING])
    rows = connection.execute(select(*JOB_COLUMNS).where(uses, active)).all()
    return [job_of(row) for row in rows]


def _give_up_inspection(connection: Connection, job: Job) -> None:
    if job.status is JobStatus.QUEUED:
        remove(connection, job)
        return
    change(
        connection,
        jobs.c.id == job.id,
        cause="delete_requested",
        cancel_requested=True,
        delete_requested=True,
    )
