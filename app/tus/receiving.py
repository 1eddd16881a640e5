"""One PATCH: more bytes, and the record of the model or data set with the last."""

from contextlib import ExitStack
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.access import Identity
from app.admission import quota_of
from app.errors import Refusal
from app.limits import read_body
from app.submission import add_artifact
from app.tus import headers
from app.tus.growing import growth_of
from app.tus.growth import Appending
from app.uploads import BATCH_BYTES, Upload, in_thread
from worker.compression import CompressionError
from worker.jobs import Announced, JobError, NotFound, OffsetConflict
from worker.services import Services

KEEP_BYTES = 64 * 1024 * 1024  # a client may send all at once: so much is lost with a process


class Chunk:
    """The body of one request on its way."""

    def __init__(self, appending: Appending, checksum: headers.Checksum | None) -> None:
        self._appending = appending
        self._kept = appending.at
        self._checksum = checksum
        self._hash: Any = checksum.start() if checksum else None
        self._batch = bytearray()

    async def receive(self, request: Request, *, limit: int) -> None:
        """Take what comes. What came before a failure is kept, unless it cannot be checked.

        Raises:
            Refusal: too large, too slow, no room, or not what the checksum says.
            OffsetConflict: another request was faster.
        """
        try:
            async for data in read_body(request, limit=limit):
                self._batch += data
                if len(self._batch) >= BATCH_BYTES:
                    await self._flush()
            await self._flush()
        except BaseException:
            await self._keep_or_drop()
            raise
        if self._checksum and not self._checksum.matches(self._hash):
            await in_thread(self._appending.drop)
            raise Refusal(
                "checksum_mismatch",
                f"the {self._checksum.algorithm} of these bytes is not the stated one",
                hint="send them again from the same offset",
            )
        await in_thread(self._appending.keep)

    async def _flush(self) -> None:
        batch, self._batch = bytes(self._batch), bytearray()
        if batch:
            await in_thread(lambda: self._write(batch))

    def _write(self, batch: bytes) -> None:
        self._appending.write(batch)
        if self._hash is not None:
            self._hash.update(batch)
        elif self._appending.at - self._kept >= KEEP_BYTES:
            self._appending.keep()
            self._kept = self._appending.at

    async def _keep_or_drop(self) -> None:
        if self._checksum is not None:
            await in_thread(self._appending.drop)
            return
        try:
            await self._flush()
            await in_thread(self._appending.keep)
        except (Refusal, JobError):
            return  # no room, or another request was faster: what was kept already stays


async def receive(
    request: Request, services: Services, identity: Identity, upload: Announced
) -> tuple[int, Announced]:
    """Append the request's body; the offset then, and the upload, complete or not.

    Raises:
        Refusal, CompressionError, JobError: as far as it came, the upload can go on.
    """
    at, checksum = headers.number(request, "upload-offset"), headers.checksum(request)
    with ExitStack() as stack:
        append = growth_of(services).append(upload)
        appending = await run_in_threadpool(stack.enter_context, append)
        if at != appending.at:
            raise OffsetConflict(appending.at, at)
        try:
            await Chunk(appending, checksum).receive(request, limit=upload.bytes - at)
        except ClientDisconnect:
            return appending.at, upload  # nobody is there to read it
        return await _finish(services, identity, upload, at=appending.at)


async def complete(services: Services, identity: Identity, upload: Announced) -> Announced:
    """Record an upload that arrived whole while the service died, if nobody else does."""
    with ExitStack() as stack:
        append = growth_of(services).append(upload)
        appending = await run_in_threadpool(stack.enter_context, append)
        _, done = await _finish(services, identity, upload, at=appending.at)
        return done


async def _finish(
    services: Services, identity: Identity, upload: Announced, *, at: int
) -> tuple[int, Announced]:
    """With the last byte: make it a model or a data set."""
    if at < upload.bytes:
        return at, upload
    growth = growth_of(services)
    try:
        with await in_thread(lambda: growth.whole(upload)) as incoming:
            await add_artifact(
                services,
                upload.owner_id,
                upload.kind,
                Upload(upload.name, incoming),
                quota=quota_of(services.settings, identity),
                upload_id=upload.id,
            )
    except CompressionError:
        # No model and no data: sending it again would not help.
        await run_in_threadpool(growth.remove, upload.id)
        services.discard(await run_in_threadpool(services.uploads.forget, upload.id))
        raise
    except NotFound:  # it is forgotten, which the next lines say, or another request was faster
        pass
    else:
        await run_in_threadpool(growth.remove, upload.id)
    return at, await run_in_threadpool(services.uploads.get, upload.owner_id, upload.id)
