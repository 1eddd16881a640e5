"""Request bodies for the OpenAPI document: routes that stream them declare no parameters."""

from collections.abc import Mapping
from typing import Any

from app.ids import SCHEMA as ID
from worker.compression import PRESETS
from worker.jobs import ArtifactKind

_TEXT = {"type": "string"}
_BYTES = _TEXT | {"contentMediaType": "application/octet-stream"}
_JSON = _TEXT | {"contentMediaType": "application/json"}
# JSON Schema cannot say what such a file is: the format names it.
_FILES = {"model": _BYTES | {"format": "model"}, "dataset": _BYTES | {"format": "dataset"}}
_ID = {"anyOf": [ID, {"const": ""}]}  # a field left empty in a browser
_TEXTS: dict[str, Any] = {
    "recipe": {
        "anyOf": [{"enum": list(PRESETS)}, _JSON | {"format": "recipe"}],
        "description": "A preset's name, or JSON as /v1/recipe-schema has it.",
    },
    "inputs": _JSON
    | {"format": "inputs", "description": "What the inputs are, where no file says it."},
    "name": _TEXT | {"description": "What to call the job."},
}


def job_body(files: Mapping[str, ArtifactKind]) -> dict[str, Any]:
    """The form of a job: its model, as a file or by id, and perhaps data likewise."""
    properties: dict[str, Any] = {name: _FILES[kind] for name, kind in files.items()}
    properties |= {f"{name}_id": _ID for name in files} | _TEXTS
    both = [_given(f"{name}_id") | {"required": [name, f"{name}_id"]} for name in files]
    model = {"oneOf": [{"required": ["model"]}, _given("model_id")]}
    return _body({"multipart/form-data": _form(properties) | model | {"not": {"anyOf": both}}})


def file_body(kind: ArtifactKind) -> dict[str, Any]:
    """One file: as the body itself, or as a form."""
    file = _FILES[kind]
    form = _form({"file": file, "name": _TEXT}) | {"required": ["file"]}
    return _body({"application/octet-stream": file, "multipart/form-data": form})


def _given(name: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"minLength": 1}}}


def _form(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _body(schemas: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    content = {kind: {"schema": schema} for kind, schema in schemas.items()}
    return {"requestBody": {"required": True, "content": content}}
