"""Jobs: submit, look, wait, end, fetch the result."""

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import HTMLResponse, Response
from starlette.concurrency import run_in_threadpool

from app.access import Asking, Owner
from app.admission import admitted, quota_of
from app.api.bodies import job_body
from app.dependencies import InServices, accepts_job
from app.downloads import Download, answers, serve_file
from app.errors import Refusal
from app.events import EVENTS, job_events
from app.ids import Cursor, Id
from app.schemas import API, JobList, JobView, job_view
from app.security import REPORT_POLICY
from app.submission import FIELDS, KEY_SCHEMA, KINDS, submit
from app.uploads import receive_form
from worker.jobs import Job, JobStatus

RETRY_AFTER_S = "2"

router = APIRouter(prefix=f"{API}/jobs", tags=["jobs"])

IdempotencyKey = Annotated[str | None, Header(json_schema_extra=KEY_SCHEMA)]


def answer(job: Job, *, status: int = 200) -> Response:
    """A JobView, serialised once; with the address and the pace of polling where it goes on."""
    headers = {"Location": f"{API}/jobs/{job.id}"} if status == 202 else {}
    if not job.status.ended:
        headers["Retry-After"] = RETRY_AFTER_S
    return Response(
        job_view(job).model_dump_json(),
        status_code=status,
        headers=headers | {"Cache-Control": "no-store"},
        media_type="application/json",
    )


@router.post(
    "",
    status_code=202,
    response_model=JobView,
    openapi_extra=job_body(KINDS),
)
async def create_job(
    request: Request,
    services: InServices,
    asking: Asking,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Submit a model with a recipe. The job is recorded when this answers."""
    owner, quota = asking.owner_id, quota_of(services.settings, asking)
    accepts = accepts_job(services, owner, fields=FIELDS)
    async with admitted(request, asking), receive_form(request, accepts) as form:
        job = await submit(services, owner, form, idempotency_key=idempotency_key, quota=quota)
    return answer(job, status=202)


@router.get("", response_model=JobList)
def list_jobs(
    services: InServices,
    owner: Owner,
    status: JobStatus | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Cursor | None = None,
) -> JobList:
    """Jobs, newest first; `next_cursor` is null on the last page."""
    page = services.jobs.page(owner, status=status, limit=limit, cursor=cursor)
    return JobList(items=[job_view(job) for job in page.items], next_cursor=page.next_cursor)


@router.get("/{job_id}", response_model=JobView)
async def get_job(job_id: Id, services: InServices, owner: Owner) -> Response:
    """A job now."""
    # Straight from the loop: the read is one indexed row, and a thread hop costs more than it.
    return answer(services.jobs.get(owner, job_id))


@router.get(
    "/{job_id}/events",
    response_class=Response,
    responses=EVENTS,
)
async def get_job_events(
    job_id: Id,
    services: InServices,
    owner: Owner,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Server-sent events `job`, each with a JobView; the stream ends with the job."""
    return await job_events(services, owner, job_id, last_event_id=last_event_id)


@router.post("/{job_id}/cancel", response_model=JobView, responses={202: {"model": JobView}})
def cancel_job(job_id: Id, services: InServices, owner: Owner) -> Response:
    """End a job: at once where it is queued, within seconds where it runs."""
    job = services.jobs.cancel(owner, job_id)
    return answer(job, status=200 if job.status.ended else 202)


@router.post("/{job_id}/retry", status_code=202, response_model=JobView)
def retry_job(job_id: Id, services: InServices, asking: Asking) -> Response:
    """Run a failed or canceled job again, under the same id."""
    job = services.jobs.retry(
        asking.owner_id, job_id, quota=quota_of(services.settings, asking)
    )
    services.enqueue(job.id)
    return answer(job, status=202)


@router.delete(
    "/{job_id}", status_code=204, responses={202: {"description": "stops, then goes"}}
)
def delete_job(job_id: Id, services: InServices, owner: Owner) -> Response:
    """Remove a job with its files; one that runs is canceled and vanishes when it stops."""
    keys = services.jobs.delete(owner, job_id)
    if keys is None:
        return Response(status_code=202)
    services.discard(keys)
    return Response(status_code=204)


@router.head("/{job_id}/model", include_in_schema=False)
@router.get(
    "/{job_id}/model", response_class=Download, responses=answers("application/octet-stream")
)
async def get_model(
    request: Request, job_id: Id, services: InServices, owner: Owner
) -> Response:
    """The compressed model; a range of it where `Range` asks for one."""
    return await _result(request, job_id, services, owner, name="model.onnx")


@router.head("/{job_id}/report", include_in_schema=False)
@router.get("/{job_id}/report", responses=answers("application/json"))
async def get_report(
    request: Request, job_id: Id, services: InServices, owner: Owner
) -> Response:
    """What the compression did, as JSON."""
    return await _result(request, job_id, services, owner, name="report.json", inline=True)


@router.head("/{job_id}/report.html", include_in_schema=False)
@router.get(
    "/{job_id}/report.html", response_class=HTMLResponse, responses=answers("text/html")
)
async def get_report_page(
    request: Request, job_id: Id, services: InServices, owner: Owner
) -> Response:
    """The same as a page for people."""
    response = await _result(request, job_id, services, owner, name="report.html", inline=True)
    response.headers["content-security-policy"] = REPORT_POLICY
    return response


@router.head("/{job_id}/files/{name}", include_in_schema=False)
@router.get(
    "/{job_id}/files/{name}",
    response_class=Response,
    responses=answers("application/octet-stream", "application/json", "text/html"),
)
async def get_file(
    request: Request, job_id: Id, name: str, services: InServices, owner: Owner
) -> Response:
    """Any other file of the result, by its name in the report."""
    return await _result(request, job_id, services, owner, name=name)


async def _result(
    request: Request,
    job_id: Id,
    services: InServices,
    owner: str,
    *,
    name: str,
    inline: bool = False,
) -> Response:
    job = await run_in_threadpool(services.jobs.get, owner, job_id)
    if not job.status.ended:
        raise Refusal(
            "not_ready",
            f"the job is {job.status}",
            hint="wait until its status is succeeded",
            headers={"Retry-After": RETRY_AFTER_S},
        )
    if name not in job.results:
        raise _no_result(job, name)
    stem, _, extension = name.rpartition(".")
    prefix = "compressed" if stem == "model" else stem
    shown = f"{prefix}-{job.id[-8:]}.{extension}"
    return await serve_file(
        request, services.objects, job.results[name], filename=shown, inline=inline
    )


def _no_result(job: Job, name: str) -> Refusal:
    if job.status is JobStatus.SUCCEEDED and not job.results:
        return Refusal(
            "files_gone", "the files of this job are kept no longer", hint="run it again"
        )
    if job.status is JobStatus.SUCCEEDED:
        known = ", ".join(sorted(job.results))
        return Refusal(
            "not_found", f"the job has no file {name[:60]!r}", hint=f"its files are {known}"
        )
    return Refusal(
        "not_ready",
        f"the job has {job.status}: there is no result",
        hint="its JobView has the error and its remedy",
    )
