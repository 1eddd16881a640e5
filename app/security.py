"""Where a request comes from, and what the answer may do in a browser."""

import logging
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

from h11 import LocalProtocolError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access import SAFE_METHODS
from app.errors import Refusal, respond
from app.limits import in_time
from worker.logs import about
from worker.settings import Settings

logger = logging.getLogger(__name__)

PAGE_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)
REPORT_POLICY = (
    "sandbox allow-popups; default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
"""The report is made from an upload's names: it may be styled, it may never run anything."""

HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def check_host(headers: Headers, allowed: Collection[str]) -> None:
    """Refuse names that are not ours: a foreign one that resolves to us is an attack.

    That attack needs a name, so any address is fine.
    """
    address = _address(f"//{headers.get('host', '')}")
    name = (address and address.hostname) or ""
    if "*" in allowed or name in allowed or _is_ip(name):
        return
    raise Refusal(
        "untrusted_host",
        f"this server does not answer to the name {headers.get('host', '')[:100]!r}",
        hint="add the name to MODELPRESS_ALLOWED_HOSTS",
    )


def check_length_is_one(headers: Headers) -> None:
    """Refuse a body of two lengths: a proxy before us may believe the other one."""
    if "transfer-encoding" in headers and "content-length" in headers:
        raise Refusal(
            "bad_request",
            "Content-Length and Transfer-Encoding exclude each other",
            headers={"Connection": "close"},
        )


def check_origin(headers: Headers) -> None:
    """Refuse what another site made a browser send; other clients send neither header."""
    site = headers.get("sec-fetch-site")
    origin = headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        raise _cross_origin()
    if origin is not None:
        address = _address(origin)
        if address is None or address.netloc != headers.get("host"):
            raise _cross_origin()


def _is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _address(text: str) -> SplitResult | None:
    try:
        return urlsplit(text)
    except ValueError:
        return None


def _cross_origin() -> Refusal:
    return Refusal(
        "cross_origin",
        "another site may not send this request",
        hint="open the page of this server and send it from there",
    )


@dataclass(frozen=True)
class Answered:
    """One answered request, for logs and metrics. `route` is the pattern, never the path."""

    method: str
    route: str
    status: int
    seconds: float


def _log(answered: Answered) -> None:
    """One line for what changed something, or failed; polls would drown it."""
    if answered.method in SAFE_METHODS and answered.status < 500:
        return
    logger.info(
        "%s %s answered %d in %.3f s",
        answered.method,
        answered.route,
        answered.status,
        answered.seconds,
    )


class Guard:
    """Outermost middleware: request id, host and origin checks, headers of every answer."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        allowed_hosts: Collection[str],
        on_answer: Callable[[Answered], None],
        patience: float,
    ) -> None:
        self._app = app
        self._allowed_hosts = frozenset(allowed_hosts)
        self._on_answer = on_answer
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.perf_counter(), 500

        async def send_guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers["x-request-id"] = request_id
            # A body that breaks HTTP itself was answered by the server: it takes no more.
            with suppress(LocalProtocolError):
                await send(message)

        with about(request_id=request_id):
            try:
                await self._checked(scope, receive, send_guarded, request_id)
            finally:
                route = getattr(scope.get("route"), "path", "other")
                seconds = time.perf_counter() - started
                answered = Answered(scope["method"], route, status, seconds)
                self._on_answer(answered)
                _log(answered)

    async def _checked(
        self, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> None:
        headers = Headers(scope=scope)
        try:
            check_host(headers, self._allowed_hosts)
            check_length_is_one(headers)
            if scope["method"] not in SAFE_METHODS:
                check_origin(headers)
        except Refusal as refusal:
            await respond(refusal, request_id)(scope, receive, send)
            return
        await self._app(scope, in_time(receive, patience=self._patience), send)


def allowed_hosts(settings: Settings) -> set[str]:
    """The names that this server answers to."""
    given = {name.strip().lower() for name in settings.allowed_hosts.split(",")}
    return {"localhost", settings.host.lower(), *given} - {""}
