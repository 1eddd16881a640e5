"""What the records refuse.

JobError
├── NotFound             no such job or artifact, or it belongs to somebody else
├── IdempotencyConflict  the same key came with another request
├── InvalidCursor        a page cursor that we did not make
├── InUse                an artifact that a queued or running job needs
├── NotRetryable         a job that has not failed and was not canceled
└── FilesGone            a job whose model or data was deleted since
"""


class JobError(Exception):
    """A request that does not fit the records; `code` is stable."""

    code = "job_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


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


class FilesGone(JobError):
    code = "files_gone"
