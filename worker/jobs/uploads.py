"""Resumable uploads: what was announced. How much has arrived is told by the file alone."""

from typing import Any

from sqlalchemy import Row, delete, insert, select
from uuid6 import uuid7

from worker.jobs.database import Database, moment, now
from worker.jobs.errors import NotFound
from worker.jobs.records import Announced, ArtifactKind
from worker.jobs.tables import uploads
from worker.jobs.usage import Quota, check_stored


class UploadStore:
    """Uploads on their way, of their owners; a foreign one does not exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def announce(
        self,
        owner_id: str,
        kind: ArtifactKind,
        *,
        name: str,
        metadata: str,
        size: int,
        seconds: float,
        quota: Quota,
    ) -> Announced:
        """Record an upload of `size` bytes that is to be complete within `seconds`.

        Raises:
            StorageQuotaExceeded: it would be more than the owner may store.
        """
        values = {
            "id": str(uuid7()),
            "owner_id": owner_id,
            "kind": kind,
            "name": name,
            "metadata": metadata,
            "bytes": size,
            "expires_at": now() + seconds,
        }
        with self._database.write() as connection:
            row = connection.execute(insert(uploads).values(values).returning(uploads)).one()
            check_stored(connection, owner_id, quota)
        return _announced(row)

    def get(self, owner_id: str, upload_id: str) -> Announced:
        rows = self._database.read(
            select(uploads).where(uploads.c.id == upload_id, uploads.c.owner_id == owner_id)
        )
        if not rows:
            raise NotFound("upload", upload_id)
        return _announced(rows[0])

    def forget(self, upload_id: str) -> None:
        with self._database.write() as connection:
            connection.execute(delete(uploads).where(uploads.c.id == upload_id))

    def overdue(self) -> list[str]:
        """Ids of the uploads whose time is over."""
        over = select(uploads.c.id).where(uploads.c.expires_at < now())
        return [row.id for row in self._database.read(over)]


def _announced(row: Row[Any]) -> Announced:
    return Announced(
        id=row.id,
        owner_id=row.owner_id,
        kind=row.kind,
        name=row.name,
        metadata=row.metadata,
        bytes=row.bytes,
        artifact_id=row.artifact_id,
        expires_at=moment(row.expires_at),
    )
