"""Every error as an RFC 9457 problem body. Only the two tables below know HTTP statuses."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from worker.compression import CompressionError
from worker.jobs import JobError

logger = logging.getLogger(__name__)

CODES: dict[str, int] = {
    "bad_request": 400,
    "malformed_multipart": 400,
    "malformed_range": 400,
    "untrusted_host": 400,
    "unauthorized": 401,
    "cross_origin": 403,
    "csrf_failed": 403,
    "insufficient_scope": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "upload_timeout": 408,
    "not_ready": 409,
    "not_retryable": 409,
    "in_use": 409,
    "offset_conflict": 409,
    "files_gone": 410,
    "upload_expired": 410,
    "unsupported_version": 412,
    "payload_too_large": 413,
    "field_too_large": 413,
    "too_many_parts": 413,
    "unsupported_media_type": 415,
    "range_not_satisfiable": 416,
    "upload_locked": 423,
    "too_many_requests": 429,
    "quota_exceeded": 429,
    "ambiguous_field": 422,
    "digest_mismatch": 422,
    "duplicate_field": 422,
    "empty_file": 422,
    "idempotency_conflict": 422,
    "invalid_cursor": 422,
    "invalid_inputs": 422,
    "invalid_parameter": 422,
    "missing_file": 422,
    "missing_model": 422,
    "not_a_file": 422,
    "unknown_dataset": 422,
    "unknown_field": 422,
    "unknown_model": 422,
    "checksum_mismatch": 460,
    "internal_error": 500,
    "not_serving": 503,
    "unavailable": 503,
    "queue_full": 503,
    "storage_full": 507,
    "storage_quota_exceeded": 507,
}
"""Status of each code that the web process and the records give."""

LIBRARY: dict[type[CompressionError], int] = {CompressionError: 422}
"""Status of each class of the library's errors; the nearest base class counts."""


class Refusal(Exception):
    """A request turned down at the edge; `code` is a key of CODES."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        errors: Sequence[dict[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint
        self.errors = list(errors)
        self.headers = dict(headers or {})


def problem(code: str, detail: str, **members: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """A problem body; members that say nothing are left out."""
    body = {
        "type": f"/docs/errors#{code}",
        "title": code.replace("_", " ").capitalize(),
        "detail": detail,
        "code": code,
    }
    return body | {name: value for name, value in members.items() if value}


def status_of(error: Exception) -> int:
    """The HTTP status of a refusal, or of an error of the records or of the library."""
    if isinstance(error, Refusal | JobError):
        return CODES[error.code]
    for kind in type(error).__mro__:
        if kind in LIBRARY:
            return LIBRARY[kind]
    return 500


def as_refusal(error: Exception) -> Refusal:
    """Any other exception as a refusal that a user may see: no traceback, no path."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, JobError):
        wait = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        return Refusal(error.code, error.message, hint=error.hint, headers=wait)
    if isinstance(error, HTTPException):
        return _of_http(error)
    if isinstance(error, RequestValidationError):
        return _of_parameters(error)
    if isinstance(error, OperationalError | PoolTimeout):
        return Refusal(
            "unavailable", "the records cannot be reached", hint="try again in a moment"
        )
    return Refusal("internal_error", "something went wrong on our side; it has been logged")


def problem_of(error: Exception) -> dict[str, Any]:
    """The problem body of an error, with its status."""
    if isinstance(error, CompressionError):
        body = problem(error.code, error.message, hint=error.hint, errors=error.errors)
        return body | {"status": status_of(error)}
    refusal = as_refusal(error)
    body = problem(refusal.code, refusal.detail, hint=refusal.hint, errors=refusal.errors)
    return body | {"status": CODES[refusal.code]}


def respond(error: Exception, request_id: str | None = None) -> Response:
    """The problem response for an error."""
    body = problem_of(error) | ({"request_id": request_id} if request_id else {})
    headers = {} if isinstance(error, CompressionError) else as_refusal(error).headers
    return JSONResponse(
        body,
        status_code=body["status"],
        headers=headers | {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
        media_type="application/problem+json",
    )


def request_id(request: Request) -> str | None:
    found = request.scope.get("state", {}).get("request_id")
    return str(found) if found else None


def install(app: FastAPI, *, outages: Sequence[type[Exception]] = ()) -> None:
    """Make every error of the app a problem body. `outages` mean that the store is away."""
    for kind in (Refusal, CompressionError, JobError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _handle)
    for failure in (OperationalError, PoolTimeout, Exception):
        app.add_exception_handler(failure, _handle_logged)
    for outage in outages:
        app.add_exception_handler(outage, _handle_outage)
    app.add_exception_handler(ClientDisconnect, _handle_disconnect)


async def _handle(request: Request, error: Exception) -> Response:
    response = respond(error, request_id(request))
    if response.status_code == 405:
        response.headers["Allow"] = ", ".join(_allowed_methods(request))
    return response


def _allowed_methods(request: Request) -> list[str]:
    """Every method that this address takes: the router names those of one route only."""
    routes = request.app.router.routes
    methods = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
    taken = [
        method
        for method in methods
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in routes
        )
    ]
    # Where it seems to take any, it is a folder of files, which are only read.
    return taken if len(taken) < len(methods) else ["GET", "HEAD"]


async def _handle_logged(request: Request, error: Exception) -> Response:
    logger.error("request %s failed", request_id(request), exc_info=error)
    return respond(error, request_id(request))


async def _handle_outage(request: Request, error: Exception) -> Response:
    logger.error("request %s: the store is away: %s", request_id(request), error)
    away = Refusal("unavailable", "the store cannot be reached", hint="try again in a moment")
    return respond(away, request_id(request))


async def _handle_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it


def _of_http(error: HTTPException) -> Refusal:
    code, detail = {
        404: ("not_found", "there is nothing at this address"),
        405: ("method_not_allowed", "this address does not take this method"),
    }.get(error.status_code, ("bad_request", str(error.detail)))
    return Refusal(code, detail, headers=error.headers)


def _of_parameters(error: RequestValidationError) -> Refusal:
    errors = [
        {
            "field": ".".join(str(part) for part in entry["loc"][1:]),
            "message": str(entry["msg"]),
        }
        for entry in error.errors()
    ]
    first = errors[0]
    return Refusal(
        "invalid_parameter", f"parameter {first['field']}: {first['message']}", errors=errors
    )
