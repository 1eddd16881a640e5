"""A token that only a page of ours can know, for forms: what the browser keeps, and the field.

A signed-in browser's token follows from its session, so that nobody else's cookie can stand in.
"""

import hmac
import secrets
from hashlib import sha256

from fastapi import Request
from fastapi.responses import Response

from app.access import SESSION_COOKIE
from app.errors import Refusal

COOKIE = "modelpress_csrf"
FIELD = "csrf_token"


def token_for(request: Request) -> str:
    """The browser's token, or a new one."""
    cookie = _expected(request)
    return cookie if cookie and len(cookie) == 43 else secrets.token_urlsafe(32)


def remember(request: Request, response: Response, token: str) -> None:
    if SESSION_COOKIE not in request.cookies:
        set_cookie(request, response, COOKIE, token)


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Set a cookie that no script reads and no other site makes a browser send."""
    settings = request.app.state.services.settings
    is_secure = settings.https or request.url.scheme == "https"
    response.set_cookie(name, value, httponly=True, samesite="strict", secure=is_secure)


def check_token(request: Request, field: str | None) -> None:
    """Refuse a form that did not come from a page of ours."""
    expected = _expected(request)
    if expected and field and hmac.compare_digest(expected.encode(), field.encode()):
        return
    raise Refusal(
        "csrf_failed",
        "the form did not come from a page of this server, or its cookie is gone",
        hint="load the page again, allow its cookie, and send the form once more",
    )


def _expected(request: Request) -> str | None:
    if session := request.cookies.get(SESSION_COOKIE):
        return sha256(f"csrf {session}".encode()).hexdigest()[:43]
    return request.cookies.get(COOKIE)
