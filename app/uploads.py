"""Bodies streamed into the object store's spool: constant memory, hashed on the way."""

import asyncio
import errno
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app.errors import Refusal
from app.limits import check_length, check_space, no_space, read_body, stated_length, too_large
from app.multipart import HINT, MultipartReader, PartBegin, PartData
from worker.objects import Incoming, ObjectStore

BATCH_BYTES = 1024 * 1024  # one thread hop and one write for so many bytes
TEXT_BYTES = 64 * 1024  # of one text field
FORM_BYTES = 4 * TEXT_BYTES  # of a form without files
NAME_CHARACTERS = 200

Result = TypeVar("Result")


@dataclass(frozen=True)
class Upload:
    """A file that arrived whole and is not an object yet.

    `name` is what the client calls it: for display only, never part of a path.
    """

    name: str
    incoming: Incoming


@dataclass(frozen=True)
class Form:
    """What a form brought."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, Upload] = field(default_factory=dict)


@dataclass(frozen=True)
class Accepts:
    """What a body may bring: text fields, and files with the limit of each in bytes."""

    owner_id: str
    objects: ObjectStore
    reserve_bytes: int
    files: Mapping[str, int]
    fields: Collection[str] = ()

    @property
    def max_bytes(self) -> int:
        """Of the whole body, so that one stating more is refused before it is read."""
        return max(self.files.values(), default=0) + FORM_BYTES


class _Batches:
    """Hands one file to the store in batches, off the event loop."""

    def __init__(self, incoming: Incoming, *, limit: int) -> None:
        self.incoming = incoming
        self._batch = bytearray()
        self._left = limit
        self._limit = limit

    async def write(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise too_large(self._limit)
        self._batch += data
        if len(self._batch) >= BATCH_BYTES:
            await self.flush()

    async def flush(self) -> None:
        batch, self._batch = bytes(self._batch), bytearray()
        if batch:
            await in_thread(lambda: self.incoming.write(batch))


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run a write to its end, even if the request is cancelled: only then may its file close.

    Raises:
        Refusal: storage_full.
    """
    running = asyncio.ensure_future(run_in_threadpool(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise no_space() from None
        raise


@asynccontextmanager
async def receive_form(request: Request, accepts: Accepts) -> AsyncIterator[Form]:
    """Read a form to its end. Files that nobody commits vanish when the context is left.

    Raises:
        Refusal: whatever is wrong with the body.
    """
    kind = request.headers.get("content-type", "")
    media_type = kind.partition(";")[0].strip().lower()
    if media_type == "application/x-www-form-urlencoded":
        yield await _receive_urlencoded(request, accepts)
        return
    if media_type != "multipart/form-data":
        raise Refusal(
            "unsupported_media_type",
            f"cannot read a form of type {media_type[:60]!r}",
            hint=HINT,
        )
    reader = MultipartReader(kind)
    check_length(request, limit=accepts.max_bytes)
    check_space(request, accepts.objects, reserve=accepts.reserve_bytes)
    with ExitStack() as files:
        yield await _Reception(request, accepts, files).run(reader)


@asynccontextmanager
async def receive_file(
    request: Request, accepts: Accepts, *, name: str, limit: int
) -> AsyncIterator[Upload]:
    """Read a raw body as one file, checked against the digests that are given."""
    length = stated_length(request)
    check_length(request, limit=limit)
    check_space(request, accepts.objects, reserve=accepts.reserve_bytes)
    with accepts.objects.receive(accepts.owner_id, expected_bytes=length) as incoming:
        batches = _Batches(incoming, limit=limit)
        async for chunk in read_body(request, limit=limit):
            await batches.write(chunk)
        await batches.flush()
        _check_digest(incoming, request)
        yield Upload(display_name(name), incoming)


async def _receive_urlencoded(request: Request, accepts: Accepts) -> Form:
    body = bytearray()
    async for chunk in read_body(request, limit=FORM_BYTES):
        body += chunk
    form = Form()
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise Refusal("bad_request", "the form is not URL-encoded text", hint=HINT) from None
    for name, value in pairs:
        _check_name(name, form, known={*accepts.fields, *accepts.files})
        if name in accepts.files:
            raise _not_a_file(name)
        form.fields[name] = value
    return form


class _Reception:
    """One multipart body on its way in: the part that is open, and what is complete."""

    def __init__(self, request: Request, accepts: Accepts, files: ExitStack) -> None:
        self._request = request
        self._accepts = accepts
        self._files = files
        self._form = Form()
        self._parts = 0
        self._part = PartBegin("", None)
        self._file: _Batches | None = None
        self._text = bytearray()

    async def run(self, reader: MultipartReader) -> Form:
        async for chunk in read_body(self._request, limit=self._accepts.max_bytes):
            for event in reader.feed(chunk):
                if isinstance(event, PartBegin):
                    self._begin(event)
                elif isinstance(event, PartData):
                    await self._add(event.data)
                else:
                    await self._end()
        reader.finish()
        return self._form

    def _begin(self, part: PartBegin) -> None:
        known = {*self._accepts.fields, *self._accepts.files}
        self._parts += 1
        self._part, self._file, self._text = part, None, bytearray()
        _check_name(part.name, self._form, known=known)
        if self._parts > len(known):  # empty choices of files can be given again and again
            raise Refusal("too_many_parts", f"the form has more than {len(known)} parts")
        if part.name not in self._accepts.files or self._is_empty_choice:
            return  # a text field, perhaps sent as a file: curl -F recipe=@recipe.json
        if part.filename is None:
            raise _not_a_file(part.name)
        receive = self._accepts.objects.receive(self._accepts.owner_id)
        limit = self._accepts.files[part.name]
        self._file = _Batches(self._files.enter_context(receive), limit=limit)

    @property
    def _is_empty_choice(self) -> bool:
        """A browser sends a file field that was left empty as an unnamed, empty part."""
        return self._part.name in self._accepts.files and self._part.filename == ""

    async def _add(self, data: bytes) -> None:
        if self._file is not None:
            await self._file.write(data)
            return
        if self._is_empty_choice and data:
            raise Refusal("not_a_file", f"the file in field {self._part.name!r} has no name")
        self._text += data
        if len(self._text) > TEXT_BYTES:
            raise Refusal(
                "field_too_large",
                f"field {self._part.name!r} is longer than {TEXT_BYTES:,} bytes",
            )

    async def _end(self) -> None:
        if self._file is not None:
            await self._file.flush()
            name = display_name(self._part.filename or "")
            self._form.files[self._part.name] = Upload(name, self._file.incoming)
        elif not self._is_empty_choice:
            self._form.fields[self._part.name] = _decode(self._part.name, self._text)


def _check_name(name: str, form: Form, *, known: Collection[str]) -> None:
    if name not in known:
        raise Refusal(
            "unknown_field",
            f"there is no field named {name[:60]!r}",
            hint=f"the fields are {', '.join(sorted(known))}",
        )
    if name in form.fields or name in form.files:
        raise Refusal("duplicate_field", f"field {name!r} is given twice", hint="send one")


def _not_a_file(name: str) -> Refusal:
    return Refusal(
        "not_a_file",
        f"field {name!r} must be a file, not text",
        hint=f"with curl: -F {name}=@path/of/the/file",
    )


def _decode(name: str, text: bytearray) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise Refusal("bad_request", f"field {name!r} is not UTF-8 text") from None


def _check_digest(incoming: Incoming, request: Request) -> None:
    """Compare with every SHA-256 that the client stated: RFC 9530's, or in hexadecimal."""
    ours = f"sha-256=:{b64encode(bytes.fromhex(incoming.sha256)).decode()}:"
    for name in ("content-digest", "repr-digest"):
        stated = request.headers.get(name, "").replace(" ", "")
        if "sha-256=" in stated and ours not in stated:
            raise _other_digest(name)
    plain = request.headers.get("x-checksum-sha256", incoming.sha256)
    if plain.strip().lower() != incoming.sha256:
        raise _other_digest("x-checksum-sha256")


def _other_digest(header: str) -> Refusal:
    return Refusal(
        "digest_mismatch",
        f"the body's SHA-256 is not the one that {header.title()} states",
        hint="send the file again",
    )


def display_name(name: str) -> str:
    """A client's file name, made fit to show: the last part of a path, printable, not long."""
    last = name.replace("\\", "/").rpartition("/")[2]
    shown = "".join(character for character in last if character.isprintable()).strip()
    return shown[:NAME_CHARACTERS] or "unnamed"
