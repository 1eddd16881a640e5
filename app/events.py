"""Server-sent events of a job: its view, whenever its record has changed."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from fastapi.responses import Response, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool

from app.rates import too_many
from app.schemas import job_view
from worker.jobs import Job, NotFound
from worker.services import Services

POLL_S = 0.5  # the record is read so often; no connection is held between two reads
KEEP_ALIVE_S = 15.0  # proxies cut streams that stay silent for long


_EVENT = {
    "type": "object",
    "properties": {
        "event": {"const": "job"},
        "id": {"type": "string"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/JobView"},
        },
    },
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": _EVENT}}},
    204: {"description": "The client has seen the last event"},
}
"""What a stream answers, for the OpenAPI document."""


MAX_STREAMS = 100  # of one owner: each holds one of the connections that the server takes
_streams: Counter[str] = Counter()


class EventStream(StreamingResponse):
    """Server-sent events."""

    media_type = "text/event-stream"


async def job_events(
    services: Services, owner_id: str, job_id: str, *, last_event_id: str | None
) -> Response:
    """The stream; 204, which ends a browser's reconnecting, to a client that saw the end.

    Raises:
        NotFound: before the stream begins.
    """
    job = await run_in_threadpool(services.jobs.get, owner_id, job_id)
    seen = int(last_event_id) if last_event_id and last_event_id.isdecimal() else 0
    if job.status.ended and seen >= job.version:
        return Response(status_code=204)
    if _streams[owner_id] >= MAX_STREAMS:
        raise too_many("event streams at a time", seconds=POLL_S)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    stream = _stream(services, owner_id, job, seen=seen)
    return EventStream(stream, headers=headers)


async def _stream(
    services: Services, owner_id: str, job: Job, *, seen: int
) -> AsyncIterator[bytes]:
    _streams[owner_id] += 1
    try:
        async for event in _events(services, owner_id, job, seen=seen):
            yield event
    finally:
        _streams[owner_id] -= 1
        if not _streams[owner_id]:
            del _streams[owner_id]


async def _events(
    services: Services, owner_id: str, job: Job, *, seen: int
) -> AsyncIterator[bytes]:
    silent = 0.0
    while True:
        if job.version > seen:
            seen, silent = job.version, 0.0
            data = job_view(job).model_dump_json()
            yield format_sse_event(event="job", id=str(seen), data_str=data)
        if job.status.ended:
            return
        await asyncio.sleep(POLL_S)
        silent += POLL_S
        if silent >= KEEP_ALIVE_S:
            silent = 0.0
            yield KEEPALIVE_COMMENT
        try:
            job = await run_in_threadpool(services.jobs.get, owner_id, job.id)
        except NotFound:
            return  # deleted meanwhile
