"""Request bodies for the OpenAPI document: routes that stream them declare no parameters."""

from collections.abc import Iterable
from typing import Any


def form_body(*, files: Iterable[str], fields: Iterable[str]) -> dict[str, Any]:
    """A multipart form of files and text fields."""
    properties: dict[str, Any] = {
        name: {"type": "string", "contentMediaType": "application/octet-stream"}
        for name in files
    }
    properties |= {name: {"type": "string"} for name in fields}
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": schema}},
        }
    }


def file_body(kind: str) -> dict[str, Any]:
    """One file: as the body itself, or as a form."""
    body = form_body(files=("file",), fields=("name",))
    raw = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    body["requestBody"]["content"]["application/octet-stream"] = raw
    return body
