"""What the database remembers, as frozen records."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

Stage = Literal[
    "queued", "convert", "clean", "calibrate", "compress", "search", "measure", "report"
]
ArtifactKind = Literal["model", "dataset"]


class JobStatus(StrEnum):
    """Where a job is. The last three are final, until a user retries."""

    QUEUED = "queued"  # waits for a worker
    RUNNING = "running"  # a worker holds its lease
    SUCCEEDED = "succeeded"  # result and report are stored
    FAILED = "failed"  # `error` says why
    CANCELED = "canceled"  # a user ended it

    @property
    def ended(self) -> bool:
        return self in (JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED)


@dataclass(frozen=True, kw_only=True)
class NewArtifact:
    """A file that was stored and is not yet recorded."""

    name: str  # as the user called it
    format: str  # recognised from its bytes: onnx, torchscript, npz, ...
    bytes: int
    sha256: str
    key: str  # of the object


@dataclass(frozen=True, kw_only=True)
class Artifact(NewArtifact):
    """An uploaded model or data set."""

    id: str
    owner_id: str
    kind: ArtifactKind
    of_job: bool  # came with a job, and goes with it; not listed
    inspection: dict[str, Any] | None  # filled by a sandboxed task
    inspection_error: dict[str, Any] | None  # a Failure as a dict, in its place
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a user asks for. Model and data are ids of artifacts, or files that came along."""

    owner_id: str
    name: str
    recipe: Mapping[str, Any]
    model: str | NewArtifact
    calibration: str | NewArtifact | None = None
    evaluation: str | NewArtifact | None = None
    partner: str | NewArtifact | None = None
    inputs: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Idempotency:
    """A client's key for one request, with a hash of all that the request asks for."""

    key: str
    request_sha256: str


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """One file of a finished job: model.onnx, report.json, report.html, front-1.onnx, ..."""

    key: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job or an inspection failed. `code` is stable; `cause` is how its process ended."""

    code: str
    detail: str
    hint: str | None = None
    stage: str | None = None
    errors: tuple[dict[str, str], ...] = ()
    cause: str | None = None


@dataclass(frozen=True, kw_only=True)
class JobArtifact:
    """A job's own copy of what it knows of a model or data set, so that it outlives the row."""

    id: str
    name: str
    format: str
    bytes: int
    sha256: str
    key: str


@dataclass(frozen=True, kw_only=True)
class Job:
    """The record of a job. The database holds the truth; this is a copy of one moment."""

    id: str
    owner_id: str
    kind: Literal["compress", "inspect"]  # users see only compress
    name: str
    status: JobStatus
    stage: Stage
    progress: float  # 0..1; never falls within an attempt; 1 exactly when succeeded
    message: str
    attempt: int  # counts every start, 0 before the first
    losses: int  # attempts that ended with a lost worker, since created or retried
    version: int  # counts the changes of the row; the id of its latest event
    created_at: datetime
    started_at: datetime | None  # of the latest attempt
    finished_at: datetime | None
    model: JobArtifact
    calibration: JobArtifact | None
    evaluation: JobArtifact | None
    partner: JobArtifact | None  # the decoder of an encoder, or the reverse
    inputs: dict[str, Any] | None
    recipe: dict[str, Any]
    error: dict[str, Any] | None  # a Failure as a dict
    summary: dict[str, Any] | None  # DESIGN.md 3.2
    warnings: list[dict[str, str]]  # of the report
    sandbox: dict[str, Any]  # the layers that held
    results: dict[str, ResultFile]  # by file name
    cancel_requested: bool
    delete_requested: bool
    lease_id: str | None

    @property
    def files(self) -> tuple[JobArtifact, ...]:
        """The model and whatever came with it."""
        every = (self.model, self.calibration, self.evaluation, self.partner)
        return tuple(file for file in every if file is not None)

    @property
    def result_format(self) -> str | None:
        return "onnx" if self.status is JobStatus.SUCCEEDED else None


@dataclass(frozen=True, kw_only=True)
class Event:
    """One change of a job, in the order of `version` (1, 2, ...)."""

    job_id: str
    version: int
    at: datetime
    status: JobStatus
    stage: Stage
    progress: float
    message: str
    attempt: int
    cause: str | None  # what made the change: created, claimed, progress, lease_lost, ...


@dataclass(frozen=True, kw_only=True)
class Created:
    """A job as created now, or by an earlier request with the same key.

    `unused` are keys of objects that came along and that nothing refers to: delete them.
    """

    job: Job
    replayed: bool
    unused: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Jobs, newest first, and the cursor of the next page."""

    items: list[Job]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker process that reported within the last 30 s."""

    id: str
    host: str
    slots: int
    sandbox: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()  # of the jobs it takes
    last_claim_try: datetime | None = None  # when a message made it look for work
    draining: bool = False  # ends its jobs and takes no further ones
    started_at: datetime
    seen_at: datetime


@dataclass(frozen=True, kw_only=True)
class Key:
    """An API key without its secret; it stands for one owner."""

    id: str
    owner_id: str
    name: str
    scopes: frozenset[str]  # read, write, admin
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None  # within a minute


@dataclass(frozen=True, kw_only=True)
class Announced:
    """A resumable upload: what its client said it would send."""

    id: str
    owner_id: str
    kind: ArtifactKind
    name: str
    metadata: str  # as the client sent it
    bytes: int  # when it is complete
    artifact_id: str | None  # what it became
    expires_at: datetime


@dataclass(frozen=True, kw_only=True)
class Part:
    """Bytes of a resumable upload that are safe in the store."""

    at: int  # bytes of the upload before these
    bytes: int
    key: str
