"""The API's documentation as plain pages: made from the OpenAPI document, no script, no CDN."""

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from app.errors import CODES
from app.templating import templates

router = APIRouter(include_in_schema=False)


@router.get("/docs", response_class=HTMLResponse)
def show_docs(request: Request) -> Response:
    document = request.app.openapi()
    context = {"operations": _operations(document), "schemas": _schemas(document)}
    return templates.TemplateResponse(request, "docs.html", context)


@router.get("/docs/errors", response_class=HTMLResponse)
def show_errors(request: Request) -> Response:
    return templates.TemplateResponse(request, "errors.html", {"codes": CODES})


def _operations(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Operations by tag, in the order of the routes."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            shown = {
                "method": method.upper(),
                "path": path,
                "summary": operation.get("description") or operation["summary"],
                "parameters": operation.get("parameters", []),
                "bodies": operation.get("requestBody", {}).get("content", {}),
                "answers": list(operation["responses"]),
            }
            found.setdefault(operation["tags"][0], []).append(shown)
    return found


def _schemas(document: dict[str, Any]) -> dict[str, str]:
    """The schemas of the answers, as text."""
    schemas = document.get("components", {}).get("schemas", {})
    return {name: json.dumps(schema, indent=2) for name, schema in schemas.items()}
