"""Who asks: the owner that a key, or a browser's session, stands for.

Without any key ever made there is one user, `local`, and only this machine is answered. From
the first key on, every request needs one.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from app.errors import Refusal
from worker.jobs import SCOPES, Key
from worker.services import Services

LOCAL_OWNER = "local"
SESSION_COOKIE = "modelpress_session"
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
KNOWN_S = 2.0  # how long a key that was revoked may still be answered
MAX_KNOWN = 4096
USED_EVERY = timedelta(minutes=1)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """Who asks. `key_id` is None for the one user of a service without keys."""

    owner_id: str
    scopes: frozenset[str]
    key_id: str | None = None


LOCAL = Identity(LOCAL_OWNER, frozenset(SCOPES))


class Access:
    """Identities by what a request shows; each is remembered for two seconds."""

    def __init__(self, services: Services) -> None:
        self._keys = services.keys
        self._allow_open = services.settings.allow_open
        self._known: dict[bytes, tuple[Identity, float]] = {}
        self._needs_key = False
        self._asked_at = float("-inf")
        self._writes: set[asyncio.Task[None]] = set()

    async def identify(self, request: Request) -> Identity:
        """Tell who asks.

        Raises:
            Refusal: unauthorized, alike for whatever is wrong with the key.
        """
        header = request.headers.get("authorization")
        if header is not None:  # a key makes the cookies irrelevant
            scheme, _, text = header.partition(" ")
            if scheme.lower() != "bearer":
                raise unauthorized()
            return await self._identity(text.strip(), self._keys.find)
        token = request.cookies.get(SESSION_COOKIE)
        if token and await self.needs_key():
            _check_own_page(request)
            return await self._identity(token, self._keys.of_session)
        if await self.needs_key() or not (self._allow_open or is_local(request)):
            raise unauthorized()
        return LOCAL

    async def needs_key(self) -> bool:
        """Whether there ever was a key. That stays so, so a yes is never asked again."""
        if not self._needs_key and time.monotonic() - self._asked_at > KNOWN_S:
            self._needs_key = await run_in_threadpool(self._keys.were_made)
            self._asked_at = time.monotonic()
        return self._needs_key

    def forget(self, text: str) -> None:
        self._known.pop(_digest(text), None)

    async def _identity(self, text: str, find: Callable[[str], Key | None]) -> Identity:
        digest, now = _digest(text), time.monotonic()
        known = self._known.get(digest)
        if known is not None and known[1] > now:
            return known[0]
        key = await run_in_threadpool(find, text)
        if key is None:
            self._known.pop(digest, None)
            raise unauthorized()
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        identity = Identity(key.owner_id, key.scopes, key.id)
        self._known[digest] = identity, now + KNOWN_S
        if key.last_used_at is None or datetime.now(UTC) - key.last_used_at > USED_EVERY:
            task = asyncio.create_task(self._note_use(key.id))
            self._writes.add(task)
            task.add_done_callback(self._writes.discard)
        return identity

    async def _note_use(self, key_id: str) -> None:
        try:
            await run_in_threadpool(self._keys.used, key_id)
        except Exception as error:  # a full disk, say: no reason to refuse a good key
            logger.warning("the use of key %s could not be recorded: %s", key_id, error)


async def current_identity(request: Request) -> Identity:
    """Who asks, if it may do what it asks for."""
    access: Access = request.app.state.access
    identity = await access.identify(request)
    check_scope(identity, "read" if request.method in SAFE_METHODS else "write")
    if identity.key_id is not None:
        request.app.state.requests.take(identity.owner_id)
    return identity


Asking = Annotated[Identity, Depends(current_identity)]


async def current_owner(identity: Asking) -> str:
    """The owner of whatever this request reads or writes."""
    return identity.owner_id


Owner = Annotated[str, Depends(current_owner)]


async def operator(request: Request) -> Identity:
    """Who asks, if it may see what concerns all owners."""
    access: Access = request.app.state.access
    identity = await access.identify(request)
    check_scope(identity, "admin")
    return identity


Operator = Annotated[Identity, Depends(operator)]


def check_scope(identity: Identity, scope: str) -> None:
    if scope in identity.scopes:
        return
    raise Refusal(
        "insufficient_scope",
        f"this key may not {scope}" if scope != "admin" else "this key is not an operator's",
        hint=f"use a key that was made with --scopes {scope}",
    )


def unauthorized() -> Refusal:
    return Refusal(
        "unauthorized",
        "this service answers to a valid key only",
        hint="send Authorization: Bearer KEY; `modelpress keys create NAME` makes one",
        headers={"WWW-Authenticate": 'Bearer realm="modelpress"'},
    )


def is_local(request: Request) -> bool:
    """Whether a connection came in on loopback, and not through a proxy of this machine."""
    if "forwarded" in request.headers or "x-forwarded-for" in request.headers:
        return False
    server = request.scope.get("server") or ("",)
    try:
        address = ip_address(str(server[0]))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _check_own_page(request: Request) -> None:
    """Have a cookie change things only where the browser says that a page of ours asked.

    That the two headers name this server was checked before.
    """
    if request.method in SAFE_METHODS or not request.url.path.startswith("/v1/"):
        return  # pages carry a token of their own
    if "origin" not in request.headers and "sec-fetch-site" not in request.headers:
        raise Refusal(
            "csrf_failed",
            "with a session cookie alone this can be asked from a page of this server only",
            hint="send Authorization: Bearer KEY",
        )


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
