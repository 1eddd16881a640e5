"""What the records refuse.

JobError
├── NotFound             no such job or artifact, or it belongs to somebody else
├── IdempotencyConflict  the same key came with another request
├── InvalidCursor        a page cursor that we did not make
├── InUse                an artifact that a queued or running job needs
├── NotRetryable         a job that has not failed and was not canceled
├── OffsetConflict       bytes for another place of a resumable upload than the next one
├── FilesGone            a job whose model or data was deleted since
├── QueueFull            too many jobs of all owners wait
├── QuotaExceeded        an owner that has used what it may, for now
└── StorageQuotaExceeded an owner whose files would take more room than they may
"""


class JobError(Exception):
    """A request that does not fit the records; `code` is stable."""

    code = "job_error"
    hint: str | None = None

    def __init__(self, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after = retry_after  # in seconds, where waiting helps


class NotFound(JobError):
    code = "not_found"

    def __init__(self, what: str, wanted: str) -> None:
        super().__init__(f"there is no {what} {wanted[:64]!r}")


class IdempotencyConflict(JobError):
    code = "idempotency_conflict"


class InvalidCursor(JobError):
    code = "invalid_cursor"


class InUse(JobError):
    code = "in_use"

    def __init__(self, message: str, *, job_ids: tuple[str, ...]) -> None:
        super().__init__(message)
        self.job_ids = job_ids


class NotRetryable(JobError):
    code = "not_retryable"


class OffsetConflict(JobError):
    code = "offset_conflict"
    hint = "ask for the offset with HEAD, and go on from there"

    def __init__(self, stands: int, at: int) -> None:
        super().__init__(f"the upload stands at {stands:,}, not at {at:,}")


class FilesGone(JobError):
    code = "files_gone"


class QueueFull(JobError):
    code = "queue_full"
    hint = "send it again later"


class QuotaExceeded(JobError):
    code = "quota_exceeded"
    hint = "wait, or ask the operator for more"

    def __init__(self, limit: str, *, retry_after: int) -> None:
        super().__init__(f"your limit is {limit}", retry_after=retry_after)


class StorageQuotaExceeded(JobError):
    code = "storage_quota_exceeded"
    hint = "delete jobs, models or data sets that are no longer needed"

    def __init__(self, limit: int) -> None:
        super().__init__(f"your files may take {limit:,} bytes, and this is more")
