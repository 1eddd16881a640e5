"""The OpenAPI document, with what FastAPI cannot know: problem bodies, keys, open routes."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

OPEN = ("/healthz", "/readyz", "/v1/recipes", "/v1/recipe-schema")
_PROBLEM = {
    "description": "A problem; `code` is stable",
    "content": {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
    },
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document; made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        for path, methods in document["paths"].items():
            for operation in methods.values():
                _complete(path, operation)
        # The empty one: without any key ever made, this machine is answered without.
        document["security"] = [{"key": []}, {}]
        document["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"}
        }
        for name in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema


def _sent(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema without null, which means that a parameter is not sent at all."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**kinds[0], **{name: value for name, value in schema.items() if name != "anyOf"}}


def _complete(path: str, operation: dict[str, Any]) -> None:
    operation["responses"].pop("422", None)  # FastAPI's own shape, which is never sent
    operation["responses"] |= {"4XX": _PROBLEM, "5XX": _PROBLEM}
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _sent(parameter["schema"])
    if path in OPEN:
        operation["security"] = []
