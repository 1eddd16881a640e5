"""Uploads that grow as objects of a bucket: any web process goes on with any upload.

No lock is needed between hosts, and none is held by a host that died: of two requests that send
to the same place, the one whose part is recorded first counts.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from app.tus.growth import gone
from worker.jobs import Announced, Part
from worker.objects import Incoming, ObjectMissing
from worker.services import Services


class PartAppending:
    """A spool file that becomes the next part when it is kept."""

    def __init__(self, services: Services, upload: Announced, kept: int) -> None:
        self._services = services
        self._upload = upload
        self._kept = kept
        self._incoming: Incoming | None = None

    @property
    def at(self) -> int:
        return self._kept + (self._incoming.bytes if self._incoming else 0)

    def write(self, batch: bytes) -> None:
        if self._incoming is None:
            self._incoming = self._services.objects.receive(self._upload.owner_id)
        self._incoming.write(batch)

    def keep(self) -> None:
        if self._incoming is None:
            return
        with self._incoming as incoming:
            stored = incoming.commit()
        part = Part(at=self._kept, bytes=stored.bytes, key=stored.key)
        try:
            self._services.uploads.add_part(self._upload.id, part)
        except BaseException:
            self._services.discard([stored.key])
            raise
        self._incoming = None
        self._kept += part.bytes

    def drop(self) -> None:
        if self._incoming is not None:
            self._incoming.abort()
            self._incoming = None


class PartGrowth:
    """Parts as objects, in the order that the database has them."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def begin(self, upload_id: str) -> None:
        """Nothing to do: the record says that it has begun."""

    def offset(self, upload: Announced) -> int:
        return sum(part.bytes for part in self._services.uploads.parts(upload.id))

    @contextmanager
    def append(self, upload: Announced) -> Iterator[PartAppending]:
        appending = PartAppending(self._services, upload, self.offset(upload))
        try:
            yield appending
        finally:
            appending.drop()

    def whole(self, upload: Announced) -> Incoming:
        store = self._services.objects
        incoming = store.receive(upload.owner_id, expected_bytes=upload.bytes)
        try:
            for part in self._services.uploads.parts(upload.id):
                for piece in store.read(part.key):
                    incoming.write(piece)
        except BaseException as error:
            incoming.abort()
            raise (gone() if isinstance(error, ObjectMissing) else error) from None
        return incoming

    def remove(self, upload_id: str) -> None:
        self._services.discard(self._services.uploads.drop_parts(upload_id))

    def sweep(self, *, before: float) -> None:
        """Nothing to do: parts of no record are found by `modelpress gc`."""
