"""The record of jobs: what is asked for, who works on it, how it ended."""

from worker.jobs.artifacts import ArtifactPage, ArtifactStore, CreatedArtifact
from worker.jobs.database import Database
from worker.jobs.errors import (
    FilesGone,
    IdempotencyConflict,
    InUse,
    InvalidCursor,
    JobError,
    NotFound,
    NotRetryable,
    OffsetConflict,
    QueueFull,
    QuotaExceeded,
    StorageQuotaExceeded,
)
from worker.jobs.figures import Figures, QueueFigures
from worker.jobs.holder import current_holder, is_gone
from worker.jobs.keys import SCOPES, KeyStore
from worker.jobs.leases import Beat, Ended, Leases, Taken
from worker.jobs.migrate import migrate
from worker.jobs.queue import SIZE_CLASSES
from worker.jobs.records import (
    Announced,
    Artifact,
    ArtifactKind,
    Created,
    Event,
    Failure,
    Idempotency,
    Job,
    JobArtifact,
    JobStatus,
    Key,
    NewArtifact,
    NewJob,
    Page,
    Part,
    ResultFile,
    Stage,
    Worker,
)
from worker.jobs.retention import Expired, Keeping, Retention
from worker.jobs.store import JobStore
from worker.jobs.uploads import UploadStore
from worker.jobs.usage import Quota, UsageStore, Used
from worker.jobs.workers import WorkerRegister

__all__ = [
    "SCOPES",
    "SIZE_CLASSES",
    "Announced",
    "Artifact",
    "ArtifactKind",
    "ArtifactPage",
    "ArtifactStore",
    "Beat",
    "Created",
    "CreatedArtifact",
    "Database",
    "Ended",
    "Event",
    "Expired",
    "Failure",
    "Figures",
    "FilesGone",
    "Idempotency",
    "IdempotencyConflict",
    "InUse",
    "InvalidCursor",
    "Job",
    "JobArtifact",
    "JobError",
    "JobStatus",
    "JobStore",
    "Keeping",
    "Key",
    "KeyStore",
    "Leases",
    "NewArtifact",
    "NewJob",
    "NotFound",
    "NotRetryable",
    "OffsetConflict",
    "Page",
    "Part",
    "QueueFigures",
    "QueueFull",
    "Quota",
    "QuotaExceeded",
    "ResultFile",
    "Retention",
    "Stage",
    "StorageQuotaExceeded",
    "Taken",
    "UploadStore",
    "UsageStore",
    "Used",
    "Worker",
    "WorkerRegister",
    "current_holder",
    "is_gone",
    "migrate",
]
