"""Limits that hold before and while a body is read, so that nothing large is ever parsed."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.types import Message, Receive

from app.errors import Refusal
from worker.objects import ObjectStore

SLOWEST_BYTES_PER_S = 8 * 1024  # below this rate, after the grace, an upload only holds a slot
GRACE_S = 60.0


def stated_length(request: Request) -> int | None:
    """Content-Length, or None where the body is chunked."""
    header = request.headers.get("content-length")
    if header is None:
        return None
    if not header.isdecimal():
        raise Refusal("bad_request", "Content-Length is not a number")
    return int(header)


def check_length(request: Request, *, limit: int) -> None:
    """Refuse a body that says itself that it is too large, before a byte of it is read."""
    length = stated_length(request)
    if length is not None and length > limit:
        raise too_large(limit)


def check_space(request: Request, objects: ObjectStore, *, reserve: int) -> None:
    """Refuse a body that does not fit on the disk with a reserve left for running jobs."""
    free = objects.free_bytes()
    if free is not None and free - (stated_length(request) or 0) < reserve:
        raise no_space()


def no_space() -> Refusal:
    return Refusal(
        "storage_full",
        "the server has no room for this upload",
        hint="delete jobs, models or data sets that are no longer needed, then send it again",
    )


def too_large(limit: int) -> Refusal:
    return Refusal(
        "payload_too_large",
        f"the body is larger than the limit of {limit:,} bytes",
        hint="send a smaller file, or raise MODELPRESS_MAX_MODEL_BYTES",
        headers={"Connection": "close"},
    )


async def read_body(request: Request, *, limit: int) -> AsyncIterator[bytes]:
    """The body's chunks, cut at `limit` bytes.

    Raises:
        Refusal: payload_too_large, or of `in_time` upload_timeout.
    """
    check_length(request, limit=limit)
    clock = asyncio.get_running_loop().time
    started, received = clock(), 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > limit:
                raise too_large(limit)
            yield chunk
    finally:
        request.app.state.metrics.received(received, seconds=clock() - started)


def in_time(receive: Receive, *, patience: float) -> Receive:
    """Have a body come at a pace; the client that stalls is given up.

    After the body, waiting for the client to go may take any time.
    """
    clock = asyncio.get_running_loop().time
    started, received, ended = clock(), 0, False

    async def receive_in_time() -> Message:
        nonlocal received, ended
        if ended:
            return await receive()
        try:
            async with asyncio.timeout(patience):
                message = await receive()
        except TimeoutError:
            raise _stalled() from None
        received += len(message.get("body", b""))
        ended = not message.get("more_body", False)
        waited = clock() - started - GRACE_S
        if not ended and received < waited * SLOWEST_BYTES_PER_S:
            raise _stalled()
        return message

    return receive_in_time


def _stalled() -> Refusal:
    return Refusal(
        "upload_timeout",
        "the upload came too slowly",
        hint="send it again over a faster connection",
        headers={"Connection": "close"},
    )
