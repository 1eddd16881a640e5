"""Stored files as answers: ranges, entity tags, and names that are safe in any header."""

import re
from collections.abc import Generator, Mapping
from pathlib import PurePosixPath
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from app.errors import Refusal
from worker.jobs import ResultFile
from worker.objects import ObjectMissing, ObjectStore

_TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json"}
_RANGE = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*")


class Download(StreamingResponse):
    """A file as it is, let go of when the client is."""

    media_type = "application/octet-stream"

    def __init__(
        self,
        content: Generator[bytes],
        *,
        status_code: int = 200,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        super().__init__(content, status_code, headers, media_type)
        self._content = content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._content.close()  # else it stays open until the interpreter looks for garbage


def answers(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """What a download may answer, for the OpenAPI document."""
    file: dict[str, Any] = {
        "content": {media_type: {} for media_type in media_types},
        "headers": {"ETag": {"schema": {"type": "string"}}},
    }
    part = {"description": "The range that was asked for"}
    return {200: file, 206: file | part, 304: {"description": "The client has it already"}}


async def serve_file(
    request: Request,
    objects: ObjectStore,
    file: ResultFile,
    *,
    filename: str,
    inline: bool = False,
) -> Response:
    """The file, or the range of it that is asked for; 304 where the client has it.

    Raises:
        Refusal: files_gone or range_not_satisfiable.
    """
    etag = f'"sha256-{file.sha256}"'
    place = "inline" if inline else "attachment"
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'{place}; filename="{_plain(filename)}"',
    }
    if _is_known(request, etag):
        return Response(status_code=304, headers=headers)
    await _check_stored(objects, file)
    start, stop = _range(request, file.bytes, etag)
    whole = (start, stop) == (0, file.bytes)
    headers["Content-Length"] = str(stop - start)
    if not whole:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{file.bytes}"
    status = 200 if whole else 206
    media_type = _TYPES.get(PurePosixPath(filename).suffix, "application/octet-stream")
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    body = objects.read(file.key, start=start, stop=stop)
    return Download(body, status_code=status, headers=headers, media_type=media_type)


def _is_known(request: Request, etag: str) -> bool:
    tags = [tag.strip() for tag in _header(request, "if-none-match").split(",")]
    return "*" in tags or etag in [tag.removeprefix("W/") for tag in tags]


async def _check_stored(objects: ObjectStore, file: ResultFile) -> None:
    try:
        await run_in_threadpool(objects.stat, file.key)
    except ObjectMissing:
        raise Refusal("files_gone", "the file is no longer stored") from None


def _range(request: Request, size: int, etag: str) -> tuple[int, int]:
    """Half-open range to send.

    One that we do not serve (several at once, or not a range at all) means the whole file, as
    RFC 9110 has it; so does If-Range with another tag.
    """
    asked = _RANGE.fullmatch(_header(request, "range"))
    if asked is None or _header(request, "if-range") not in ("", etag):
        return 0, size
    first, last = asked.groups()
    if not first and not last:
        return 0, size
    start = int(first) if first else max(0, size - int(last))
    stop = min(int(last) + 1, size) if first and last else size
    if first and last and int(last) < int(first):
        return 0, size
    if start >= size:
        raise Refusal(
            "range_not_satisfiable",
            f"the file has {size:,} bytes",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, stop


def _header(request: Request, name: str) -> str:
    return request.headers.get(name, "").strip()


def _plain(filename: str) -> str:
    """A file name of letters that need no quoting anywhere."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", filename)
