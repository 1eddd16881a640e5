"""The routes of tus: announce, ask, send, give up."""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from app.access import Asking, Identity
from app.admission import Admission, check_room, quota_of
from app.dependencies import InServices, max_bytes
from app.errors import Refusal, request_id, respond
from app.ids import Id
from app.limits import check_space, no_space, too_large
from app.schemas import API
from app.tus import described, headers, receiving
from app.tus.growing import growth_of
from worker.compression import CompressionError
from worker.jobs import Announced, JobError
from worker.services import Services


class TusRoute(APIRoute):
    """A route that speaks one version of tus, and says so in every answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_tus(request: Request) -> Response:
            try:
                response = await handle(request)
            except (Refusal, CompressionError, JobError, RequestValidationError) as error:
                response = respond(error, request_id(request))
            response.headers["Tus-Resumable"] = headers.VERSION
            return response

        return handle_tus


router = APIRouter(prefix=f"{API}/uploads", tags=["uploads"], route_class=TusRoute)


@router.options("", status_code=204, response_class=Response, responses=described.ABILITIES)
async def tell_abilities(services: InServices) -> Response:
    """What of tus is spoken here."""
    largest = max(max_bytes(services, "model"), max_bytes(services, "dataset"))
    return Response(
        status_code=204,
        headers={
            "Tus-Version": headers.VERSION,
            "Tus-Extension": headers.EXTENSIONS,
            "Tus-Max-Size": str(largest),
            "Tus-Checksum-Algorithm": ",".join(headers.ALGORITHMS),
        },
    )


@router.post(
    "",
    status_code=201,
    response_class=Response,
    responses=described.ANNOUNCED,
    openapi_extra=described.ANNOUNCING,
)
async def announce(
    request: Request,
    services: InServices,
    asking: Asking,
) -> Response:
    """Announce a file: `Upload-Length`; `Upload-Metadata` with its `kind` and `filename`."""
    headers.check_version(request)
    size, metadata = headers.number(request, "upload-length"), headers.metadata(request)
    if not size:
        raise Refusal("empty_file", "an empty file is no model and no data set")
    if size > max_bytes(services, metadata.kind):
        raise too_large(max_bytes(services, metadata.kind))
    admission: Admission = request.app.state.admission
    admission.count(asking)
    check_space(request, services.objects, reserve=services.settings.free_disk_reserve_bytes)
    if services.objects.free_bytes() - size < services.settings.free_disk_reserve_bytes:
        raise no_space()
    await check_room(services, asking, size)
    upload = await run_in_threadpool(_announce, services, asking, metadata, size)
    there = {"Location": f"{API}/uploads/{upload.id}"}
    return Response(status_code=201, headers=_expires(upload) | there)


@router.head(
    "/{upload_id}",
    response_class=Response,
    responses=described.STANDING,
    openapi_extra=described.ASKING,
)
async def tell_offset(
    request: Request,
    upload_id: Id,
    services: InServices,
    asking: Asking,
) -> Response:
    """How much has arrived; once it is complete, `Location` of the model or data set."""
    headers.check_version(request)
    upload = await _upload(services, asking, upload_id)
    at = await run_in_threadpool(_offset, services, upload)
    if at == upload.bytes and upload.artifact_id is None:
        upload = await receiving.complete(services, asking, upload)
    known = {
        "Upload-Offset": str(at),
        "Upload-Length": str(upload.bytes),
        "Upload-Metadata": upload.metadata,
        "Cache-Control": "no-store",
    }
    return Response(status_code=200, headers=known | _expires(upload) | _made(upload))


@router.patch(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    responses=described.SENT,
    openapi_extra=described.SENDING,
)
async def send(
    request: Request,
    upload_id: Id,
    services: InServices,
    asking: Asking,
) -> Response:
    """Send bytes from `Upload-Offset` on; the last answers `Location` of what they make."""
    headers.check_version(request)
    if request.headers.get("content-type", "").partition(";")[0].strip() != headers.CHUNK_TYPE:
        raise Refusal("unsupported_media_type", f"the body must be {headers.CHUNK_TYPE}")
    upload = await _upload(services, asking, upload_id)
    if upload.artifact_id is not None:
        return _sent(upload.bytes, upload)
    admission: Admission = request.app.state.admission
    with admission.place(asking):
        reserve = services.settings.free_disk_reserve_bytes
        check_space(request, services.objects, reserve=reserve)
        at, upload = await receiving.receive(request, services, asking, upload)
    return _sent(at, upload)


@router.delete(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    openapi_extra=described.ASKING,
)
async def give_up(
    request: Request,
    upload_id: Id,
    services: InServices,
    asking: Asking,
) -> Response:
    """Forget an upload and what has arrived of it."""
    headers.check_version(request)
    upload = await _upload(services, asking, upload_id)
    await run_in_threadpool(_forget, services, upload)
    return Response(status_code=204)


@router.post(
    "/{upload_id}",
    status_code=204,
    response_class=Response,
    responses=described.SENT,
    openapi_extra=described.MEANING,
)
async def by_another_name(
    request: Request, upload_id: Id, services: InServices, asking: Asking
) -> Response:
    """PATCH or DELETE for clients that can only POST."""
    method = request.headers.get("x-http-method-override", "").upper()
    verbs = {"PATCH": send, "DELETE": give_up}
    if method not in verbs:
        raise Refusal("bad_request", "X-HTTP-Method-Override must be PATCH or DELETE")
    return await verbs[method](request, upload_id, services, asking)


def _announce(
    services: Services, asking: Identity, metadata: headers.Metadata, size: int
) -> Announced:
    upload = services.uploads.announce(
        asking.owner_id,
        metadata.kind,
        name=metadata.name,
        metadata=metadata.text,
        size=size,
        seconds=services.settings.upload_hours * 3600,
        quota=quota_of(services.settings, asking),
    )
    growth_of(services).begin(upload.id)
    return upload


def _forget(services: Services, upload: Announced) -> None:
    """Forget it, while nobody sends to it."""
    growth = growth_of(services)
    if upload.artifact_id is None:
        with growth.append(upload):
            growth.remove(upload.id)
    services.discard(services.uploads.forget(upload.id))


def _offset(services: Services, upload: Announced) -> int:
    if upload.artifact_id is not None:
        return upload.bytes
    return growth_of(services).offset(upload)


async def _upload(services: Services, asking: Identity, upload_id: str) -> Announced:
    upload = await run_in_threadpool(services.uploads.get, asking.owner_id, upload_id)
    if upload.expires_at < datetime.now(UTC):
        raise Refusal("upload_expired", "the time for this upload is over", hint="begin again")
    return upload


def _sent(at: int, upload: Announced) -> Response:
    known = {"Upload-Offset": str(at)} | _expires(upload) | _made(upload)
    return Response(status_code=204, headers=known)


def _expires(upload: Announced) -> dict[str, str]:
    return {"Upload-Expires": format_datetime(upload.expires_at, usegmt=True)}


def _made(upload: Announced) -> dict[str, str]:
    if upload.artifact_id is None:
        return {}
    return {"Location": f"{API}/{upload.kind}s/{upload.artifact_id}"}
