"""Pages for people: a form, a job, a list. Everything works without script."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from app.access import SAFE_METHODS, Asking, Owner
from app.admission import admitted, quota_of
from app.csrf import FIELD, check_token, remember, token_for
from app.dependencies import InServices, accepts_job, max_bytes
from app.errors import Refusal, problem_of
from app.forms import presets, recipe_form, recipe_from
from app.ids import Id
from app.schemas import job_view
from app.submission import FIELDS, submit
from app.templating import templates
from app.uploads import FORM_BYTES, receive_form
from app.wording import headline, job_page
from worker.compression import CompressionError
from worker.jobs import JobError, JobStatus
from worker.services import Services

REFUSALS = (Refusal, CompressionError, JobError, RequestValidationError)

SentToken = Annotated[str | None, Form(alias=FIELD)]


class PageRoute(APIRoute):
    """A route whose refusals are pages too, unless a script asked for JSON."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_as_page(request: Request) -> Response:
            try:
                return await handle(request)
            except REFUSALS as error:
                if _wants_json(request):
                    raise
                if _may_sign_in(request, error):
                    here = quote(request.url.path)
                    return RedirectResponse(f"/login?next={here}", status_code=303)
                return _error_page(request, error)

        return handle_as_page


router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/")
def show_form(request: Request, services: InServices, owner: Owner) -> Response:
    return _form_page(request, services, fields={})


@router.post("/jobs")
async def send_form(request: Request, services: InServices, asking: Asking) -> Response:
    """Submit the form. A browser is sent to the job's page; a script is told its address."""
    owner, quota = asking.owner_id, quota_of(services.settings, asking)
    names = {*recipe_form().names(), *FIELDS, FIELD}
    fields: Mapping[str, str] = {}
    try:
        received = receive_form(request, accepts_job(services, owner, fields=names))
        async with admitted(request, asking), received as form:
            fields = form.fields
            check_token(request, fields.get(FIELD))
            recipe = recipe_from(fields)
            job = await submit(services, owner, form, recipe=recipe, quota=quota)
    except REFUSALS as error:
        if _wants_json(request):
            raise
        return _form_page(request, services, fields=fields, error=error)
    address = f"/jobs/{job.id}"
    if _wants_json(request):
        return JSONResponse({"location": address}, status_code=202)
    return RedirectResponse(address, status_code=303)


@router.get("/jobs")
def list_jobs(
    request: Request,
    services: InServices,
    owner: Owner,
    status: JobStatus | None = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    page = services.jobs.page(owner, status=status, limit=30, cursor=cursor)
    context = {
        "here": "jobs",
        "jobs": [job_view(job) for job in page.items],
        "headline": headline,
        "moving": any(not job.status.ended for job in page.items) and cursor is None,
        "next_cursor": page.next_cursor,
        "status": status,
        "statuses": list(JobStatus),
    }
    return templates.TemplateResponse(request, "jobs.html", context)


@router.get("/jobs/{job_id}")
def show_job(request: Request, job_id: Id, services: InServices, owner: Owner) -> Response:
    job = services.jobs.get(owner, job_id)
    view, token = job_view(job), token_for(request)
    context = {"here": "jobs", "job": view, "csrf_token": token} | job_page(job, view)
    response = templates.TemplateResponse(request, "job.html", context)
    remember(request, response, token)
    return response


@router.post("/jobs/{job_id}/{verb}", max_body_size=FORM_BYTES)
def act(
    request: Request,
    job_id: Id,
    verb: Annotated[str, Path(pattern="^(cancel|retry|delete)$")],
    services: InServices,
    asking: Asking,
    csrf_token: SentToken = None,
) -> Response:
    """The buttons of the job's page."""
    check_token(request, csrf_token)
    owner, quota = asking.owner_id, quota_of(services.settings, asking)
    if verb == "delete":
        services.discard(services.jobs.delete(owner, job_id) or ())
        return RedirectResponse("/jobs", status_code=303)
    if verb == "retry":
        services.enqueue(services.jobs.retry(owner, job_id, quota=quota).id)
    else:
        services.jobs.cancel(owner, job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)


def _form_page(
    request: Request,
    services: Services,
    *,
    fields: Mapping[str, str],
    error: Exception | None = None,
) -> Response:
    """The form; after a refusal with its reason, and all that was filled in but the files."""
    body = problem_of(error) if error else None
    wrong = {entry["field"]: entry["message"] for entry in (body or {}).get("errors", [])}
    token = token_for(request)
    form = recipe_form()
    advanced = [control.name for group in form.groups for control in group.controls]
    context = {
        "here": "new",
        "csrf_token": token,
        "form": form,
        "presets": presets(),
        "preset": fields.get("preset", "auto"),
        "values": fields,
        "wrong": wrong,
        "error": body,
        "advanced": any(fields.get(name) for name in (*advanced, "inputs", "name")),
        "max_bytes": max_bytes(services, "model"),
    }
    status = body["status"] if body else 200
    response = templates.TemplateResponse(request, "new.html", context, status_code=status)
    remember(request, response, token)
    return response


def _error_page(request: Request, error: Exception) -> HTMLResponse:
    body = problem_of(error)
    return templates.TemplateResponse(
        request, "error.html", {"error": body}, status_code=body["status"]
    )


def _may_sign_in(request: Request, error: Exception) -> bool:
    is_stranger = isinstance(error, Refusal) and error.code == "unauthorized"
    return is_stranger and request.method in SAFE_METHODS


def _wants_json(request: Request) -> bool:
    return "application/json" in request.headers.get("accept", "")
