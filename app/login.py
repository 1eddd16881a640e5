"""Signing in with a key, for browsers: a session stands in for the key from then on."""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse, Response
from starlette.concurrency import run_in_threadpool

from app.access import SESSION_COOKIE, Access
from app.csrf import FIELD, check_token, remember, set_cookie, token_for
from app.dependencies import InServices
from app.errors import Refusal, problem_of
from app.pages import PageRoute
from app.templating import templates

FORM_BYTES = 16 * 1024

router = APIRouter(include_in_schema=False, route_class=PageRoute)

Next = Annotated[str, Query(max_length=500)]


@router.get("/login")
def show_login(
    request: Request, next_page: Annotated[Next, Query(alias="next")] = "/"
) -> Response:
    return _page(request, next_page)


@router.post("/login", max_body_size=FORM_BYTES)
def log_in(
    request: Request,
    services: InServices,
    key: Annotated[str, Form(max_length=200)] = "",
    next_page: Annotated[str, Form(alias="next", max_length=500)] = "/",
    csrf_token: Annotated[str | None, Form(alias=FIELD)] = None,
) -> Response:
    """Open a session for the owner of a key."""
    check_token(request, csrf_token)
    found = services.keys.find(key.strip())
    if found is None:
        wrong = Refusal("unauthorized", "this is not a valid key", hint="copy it whole")
        return _page(request, next_page, error=wrong)
    token = services.keys.open_session(found, seconds=services.settings.session_seconds)
    response = RedirectResponse(_ours(next_page), status_code=303)
    set_cookie(request, response, SESSION_COOKIE, token)
    return response


@router.post("/logout", max_body_size=FORM_BYTES)
async def log_out(
    request: Request,
    services: InServices,
    csrf_token: Annotated[str | None, Form(alias=FIELD)] = None,
) -> Response:
    check_token(request, csrf_token)
    if token := request.cookies.get(SESSION_COOKIE):
        access: Access = request.app.state.access
        await run_in_threadpool(services.keys.close_session, token)
        access.forget(token)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(SESSION_COOKIE)
    return response


def _page(request: Request, next_page: str, *, error: Refusal | None = None) -> Response:
    token = token_for(request)
    body = problem_of(error) if error else None
    context = {"csrf_token": token, "next": _ours(next_page), "error": body, "here": "login"}
    status = body["status"] if body else 200
    response = templates.TemplateResponse(request, "login.html", context, status_code=status)
    remember(request, response, token)
    return response


def _ours(address: str) -> str:
    """An address on this server, whatever was asked for: no link leads elsewhere from here."""
    is_ours = address.startswith("/") and address[1:2] not in ("/", "\\")
    return address if is_ours and address.isprintable() else "/"
