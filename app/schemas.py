"""What the API answers: views of the records, with links and without what is ours alone."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from app.errors import problem
from worker.jobs import Artifact, Job, JobStatus

API = "/v1"


class View(BaseModel):
    model_config = ConfigDict(frozen=True)


class Problem(View):
    """An error, as RFC 9457 has it. `code` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str | None = None
    stage: str | None = None
    errors: list[dict[str, str]] | None = None
    request_id: str | None = None


class ModelView(View):
    name: str
    format: str
    bytes: int
    sha256: str


class Summary(View):
    """Before and after in one glance; figures are null where they were not measured."""

    bytes_before: int | None = None
    bytes_after: int | None = None
    latency_ms_before: float | None = None
    latency_ms_after: float | None = None
    speedup: float | None = None
    drop: float | None = None
    sqnr_db: float | None = None
    verdict: str | None = None
    sentence: str | None = None


class JobLinks(View):
    """Addresses; null where there is nothing to be had, or nothing to be done, now."""

    self: str
    events: str
    cancel: str | None
    retry: str | None
    model: str | None
    report: str | None
    report_html: str | None
    bundle: str | None


class JobView(View):
    """A job at one moment. `progress` never falls within an attempt; 1 says it succeeded."""

    id: str
    name: str
    status: JobStatus
    stage: str
    progress: float
    message: str
    attempt: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    model: ModelView
    result_format: str | None
    recipe: dict[str, Any]
    error: dict[str, Any] | None
    summary: Summary | None
    warnings: list[dict[str, str]]
    links: JobLinks


class JobList(View):
    items: list[JobView]
    next_cursor: str | None


class ArtifactView(View):
    """An uploaded model or data set; `inspection` is null until it was looked into."""

    id: str
    name: str
    format: str
    bytes: int
    sha256: str
    created_at: datetime
    inspection: dict[str, Any] | None
    inspection_error: dict[str, Any] | None
    links: dict[str, str]


class ArtifactList(View):
    items: list[ArtifactView]
    next_cursor: str | None


def job_view(job: Job) -> JobView:
    model = job.model
    return JobView(
        id=job.id,
        name=job.name,
        status=job.status,
        stage=job.stage,
        progress=job.progress,
        message=job.message,
        attempt=job.attempt,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        model=ModelView(
            name=model.name, format=model.format, bytes=model.bytes, sha256=model.sha256
        ),
        result_format=job.result_format,
        recipe=job.recipe,
        error=failure_problem(job.error),
        summary=Summary.model_validate(job.summary) if job.summary else None,
        warnings=job.warnings,
        links=_job_links(job),
    )


def artifact_view(artifact: Artifact) -> ArtifactView:
    return ArtifactView(
        id=artifact.id,
        name=artifact.name,
        format=artifact.format,
        bytes=artifact.bytes,
        sha256=artifact.sha256,
        created_at=artifact.created_at,
        inspection=artifact.inspection,
        inspection_error=failure_problem(artifact.inspection_error),
        links={"self": f"{API}/{artifact.kind}s/{artifact.id}"},
    )


def failure_problem(failure: dict[str, Any] | None) -> dict[str, Any] | None:
    """A recorded failure as a problem body, without the HTTP status that it never had."""
    if failure is None:
        return None
    members = {name: failure.get(name) for name in ("stage", "hint", "errors", "cause")}
    return problem(failure["code"], failure["detail"], **members)


def _job_links(job: Job) -> JobLinks:
    here = f"{API}/jobs/{job.id}"

    def result(name: str, address: str) -> str | None:
        return f"{here}/{address}" if name in job.results else None

    can_retry = job.status in (JobStatus.FAILED, JobStatus.CANCELED)
    return JobLinks(
        self=here,
        events=f"{here}/events",
        cancel=None if job.status.ended else f"{here}/cancel",
        retry=f"{here}/retry" if can_retry else None,
        model=result("model.onnx", "model"),
        report=result("report.json", "report"),
        report_html=result("report.html", "report.html"),
        bundle=result("bundle.zip", "files/bundle.zip"),
    )
