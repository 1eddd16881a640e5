"""One PATCH: bytes into the file, and the record of the model or data set with the last."""

import os
from io import FileIO
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.access import Identity
from app.admission import quota_of
from app.errors import Refusal
from app.limits import read_body
from app.submission import add_artifact
from app.tus import headers, partial
from app.uploads import BATCH_BYTES, Upload, in_thread
from worker.compression import CompressionError
from worker.jobs import Announced
from worker.services import Services


class Chunk:
    """The body of one request on its way into the file."""

    def __init__(self, file: FileIO, checksum: headers.Checksum | None) -> None:
        self._file = file
        self._start = file.tell()
        self._checksum = checksum
        self._hash: Any = checksum.start() if checksum else None
        self._batch = bytearray()

    async def receive(self, request: Request, *, limit: int) -> None:
        """Take what comes. What came before a failure is kept, unless it cannot be checked.

        Raises:
            Refusal: too large, too slow, no room, or not what the checksum says.
        """
        try:
            async for data in read_body(request, limit=limit):
                self._batch += data
                if len(self._batch) >= BATCH_BYTES:
                    await self._flush()
            await self._flush()
        except BaseException:
            await self._keep_or_forget()
            raise
        if self._checksum and not self._checksum.matches(self._hash):
            await self._forget()
            raise Refusal(
                "checksum_mismatch",
                f"the {self._checksum.algorithm} of these bytes is not the stated one",
                hint="send them again from the same offset",
            )
        await in_thread(lambda: os.fsync(self._file.fileno()))

    async def _flush(self) -> None:
        batch, self._batch = bytes(self._batch), bytearray()
        if batch:
            await in_thread(lambda: self._write(batch))

    def _write(self, batch: bytes) -> None:
        rest = memoryview(batch)
        while rest:
            rest = rest[self._file.write(rest) :]
        if self._hash is not None:
            self._hash.update(batch)

    async def _keep_or_forget(self) -> None:
        if self._checksum is not None:
            await self._forget()
            return
        try:
            await self._flush()
        except Refusal:
            return  # no room: what is there already stays
        await in_thread(lambda: os.fsync(self._file.fileno()))

    async def _forget(self) -> None:
        start = self._start
        await in_thread(lambda: self._file.truncate(start))


async def receive(
    request: Request, services: Services, identity: Identity, upload: Announced
) -> tuple[int, Announced]:
    """Append the request's body; the offset then, and the upload, complete or not.

    Raises:
        Refusal, CompressionError, JobError: as far as it came, the upload can go on.
    """
    at, checksum = headers.number(request, "upload-offset"), headers.checksum(request)
    with partial.locked(services.objects, upload) as (path, file):
        if at != file.tell():
            raise Refusal(
                "offset_conflict",
                f"the upload stands at {file.tell():,}, not at {at:,}",
                hint="ask for the offset with HEAD, and go on from there",
            )
        try:
            await Chunk(file, checksum).receive(request, limit=upload.bytes - at)
        except ClientDisconnect:
            return file.tell(), upload  # nobody is there to read it
        return await _finish(services, identity, upload, path=path, file=file)


async def complete(services: Services, identity: Identity, upload: Announced) -> Announced:
    """Record an upload that arrived whole while the service died, if nobody else does."""
    with partial.locked(services.objects, upload) as (path, file):
        _, done = await _finish(services, identity, upload, path=path, file=file)
        return done


async def _finish(
    services: Services, identity: Identity, upload: Announced, *, path: Path, file: FileIO
) -> tuple[int, Announced]:
    """With the last byte: make it a model or a data set."""
    at = file.seek(0, os.SEEK_END)
    if at < upload.bytes:
        return at, upload
    quota = quota_of(services.settings, identity)
    try:
        with await run_in_threadpool(services.objects.adopt, upload.owner_id, path) as incoming:
            await add_artifact(
                services,
                upload.owner_id,
                upload.kind,
                Upload(upload.name, incoming),
                quota=quota,
                upload_id=upload.id,
            )
    except FileNotFoundError:  # its time was over while it was sent
        raise partial.gone() from None
    except CompressionError:
        await run_in_threadpool(services.uploads.forget, upload.id)
        path.unlink(missing_ok=True)  # no model and no data: sending it again would not help
        raise
    path.unlink(missing_ok=True)
    return at, await run_in_threadpool(services.uploads.get, upload.owner_id, upload.id)
