"""Models and data sets that are uploaded once and used by several jobs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from app.access import Asking, Owner
from app.admission import admitted, quota_of
from app.api.bodies import file_body
from app.dependencies import InServices, accepts_artifact, max_bytes
from app.errors import Refusal
from app.ids import Cursor, Id
from app.schemas import API, ArtifactList, ArtifactView, artifact_view
from app.submission import add_artifact
from app.uploads import Upload, display_name, receive_file, receive_form
from worker.jobs import ArtifactKind
from worker.services import Services


def artifact_router(kind: ArtifactKind) -> APIRouter:
    """The four routes of one kind of artifact: they differ in nothing but the kind."""
    router = APIRouter(prefix=f"{API}/{kind}s", tags=[f"{kind}s"])
    _to_look(router, kind)
    _to_change(router, kind)
    return router


def _to_change(router: APIRouter, kind: ArtifactKind) -> None:
    @router.post(
        "", status_code=201, response_model=ArtifactView, openapi_extra=file_body(kind)
    )
    async def create(
        request: Request,
        services: InServices,
        asking: Asking,
        name: Annotated[str, Query(max_length=200)] = "",
    ) -> Response:
        """Upload a file: as the raw body, or as the field `file` of a form."""
        owner, quota = asking.owner_id, quota_of(services.settings, asking)
        received = _receive(request, services, owner, kind=kind, name=name)
        async with admitted(request, asking), received as upload:
            artifact = await add_artifact(services, owner, kind, upload, quota=quota)
        return _created(artifact_view(artifact))

    @router.delete("/{artifact_id}", status_code=204)
    def delete(artifact_id: Id, services: InServices, owner: Owner) -> Response:
        """Remove an upload that no queued or running job needs."""
        services.discard(services.artifacts.delete(owner, kind, artifact_id))
        return Response(status_code=204)


def _to_look(router: APIRouter, kind: ArtifactKind) -> None:
    @router.get("", response_model=ArtifactList)
    def listing(
        services: InServices,
        owner: Owner,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Cursor | None = None,
    ) -> ArtifactList:
        """What was uploaded, newest first."""
        page = services.artifacts.page(owner, kind, limit=limit, cursor=cursor)
        items = [artifact_view(artifact) for artifact in page.items]
        return ArtifactList(items=items, next_cursor=page.next_cursor)

    @router.get("/{artifact_id}")
    def get(artifact_id: Id, services: InServices, owner: Owner) -> ArtifactView:
        """One upload."""
        return artifact_view(services.artifacts.get(owner, kind, artifact_id))


def _created(view: ArtifactView) -> Response:
    return Response(
        view.model_dump_json(),
        status_code=201,
        headers={"Location": view.links["self"]},
        media_type="application/json",
    )


@asynccontextmanager
async def _receive(
    request: Request, services: Services, owner: str, *, kind: ArtifactKind, name: str
) -> AsyncIterator[Upload]:
    accepts = accepts_artifact(services, owner, kind=kind)
    if not request.headers.get("content-type", "").lower().startswith("multipart/"):
        limit = max_bytes(services, kind)
        async with receive_file(request, accepts, name=name, limit=limit) as upload:
            yield upload
        return
    async with receive_form(request, accepts) as form:
        if len(form.files) != 1:
            raise Refusal(
                "missing_file",
                f"the form brings {len(form.files)} files; it must be one",
                hint="send it in the field file, or as the raw body",
            )
        (upload,) = form.files.values()
        shown = form.fields.get("name") or name
        yield Upload(display_name(shown), upload.incoming) if shown else upload
