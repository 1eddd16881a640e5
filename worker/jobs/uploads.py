"""Resumable uploads: what was announced, and the parts that a shared store has of them."""

from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select
from uuid6 import uuid7

from worker.jobs.database import Database, moment, now
from worker.jobs.errors import NotFound, OffsetConflict
from worker.jobs.records import Announced, ArtifactKind, Part
from worker.jobs.tables import upload_parts, uploads
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

    def parts(self, upload_id: str) -> list[Part]:
        """What has arrived in a shared store, in order and without a gap."""
        mine = select(upload_parts).where(upload_parts.c.upload_id == upload_id)
        rows = self._database.read(mine.order_by(upload_parts.c.at))
        return [Part(at=row.at, bytes=row.bytes, key=row.key) for row in rows]

    def add_part(self, upload_id: str, part: Part) -> None:
        """Record a stored part, if it is the next one: of two at one place the first counts.

        Raises:
            OffsetConflict, NotFound: the object is of no use.
        """
        with self._database.write() as connection:
            open_one = (uploads.c.id == upload_id, uploads.c.artifact_id.is_(None))
            found = select(uploads.c.id).where(*open_one).with_for_update()
            if connection.execute(found).first() is None:
                raise NotFound("open upload", upload_id)
            stands = _arrived(connection, upload_id)
            if stands != part.at:
                raise OffsetConflict(stands, part.at)
            values = {"upload_id": upload_id} | asdict(part)
            connection.execute(insert(upload_parts).values(values))

    def drop_parts(self, upload_id: str) -> tuple[str, ...]:
        """Forget the parts, and give the objects to discard."""
        with self._database.write() as connection:
            return _drop_parts(connection, upload_id)

    def forget(self, upload_id: str) -> tuple[str, ...]:
        """Forget an upload, and give the objects to discard."""
        with self._database.write() as connection:
            connection.execute(delete(uploads).where(uploads.c.id == upload_id))
            return _drop_parts(connection, upload_id)

    def overdue(self) -> list[str]:
        """Ids of the uploads whose time is over."""
        over = select(uploads.c.id).where(uploads.c.expires_at < now())
        return [row.id for row in self._database.read(over)]


def _arrived(connection: Connection, upload_id: str) -> int:
    total = select(func.coalesce(func.sum(upload_parts.c.bytes), 0))
    return int(
        connection.execute(total.where(upload_parts.c.upload_id == upload_id)).scalar_one()
    )


def _drop_parts(connection: Connection, upload_id: str) -> tuple[str, ...]:
    mine = delete(upload_parts).where(upload_parts.c.upload_id == upload_id)
    return tuple(row.key for row in connection.execute(mine.returning(upload_parts.c.key)))


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
