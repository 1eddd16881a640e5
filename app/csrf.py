"""A token that only a page of ours can know, for forms: cookie and field must agree."""

import hmac
import secrets

from fastapi.responses import Response

from app.errors import Refusal

COOKIE = "modelpress_csrf"
FIELD = "csrf_token"


def token_for(cookie: str | None) -> str:
    """The browser's token, or a new one."""
    return cookie if cookie and len(cookie) == 43 else secrets.token_urlsafe(32)


def remember(response: Response, token: str) -> None:
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict")


def check_token(cookie: str | None, field: str | None) -> None:
    """Refuse a form that did not come from a page of ours."""
    if cookie and field and hmac.compare_digest(cookie.encode(), field.encode()):
        return
    raise Refusal(
        "csrf_failed",
        "the form did not come from a page of this server, or its cookie is gone",
        hint="load the page again, allow its cookie, and send the form once more",
    )
