"""The headers of tus for the OpenAPI document: the routes read them by themselves."""

from typing import Any

from app.tus.headers import ALGORITHMS, CHUNK_TYPE, COUNT, VERSION

_BYTES = {"type": "string", "pattern": f"^({COUNT})$"}
_BASE64 = "([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"


def _header(name: str, schema: dict[str, Any], said: str, *, required: bool = True) -> Any:  # noqa: ANN401 - JSON
    return {
        "name": name,
        "in": "header",
        "required": required,
        "schema": schema,
        "description": said,
    }


_SPOKEN = _header(
    "Tus-Resumable", {"type": "string", "const": VERSION}, "The version of tus that is spoken."
)
_LENGTH = _header(
    "Upload-Length",
    {"type": "string", "pattern": "^[1-9][0-9]{0,17}$"},
    "Bytes of the whole file.",
)
_OFFSET = _header("Upload-Offset", _BYTES, "Bytes that have arrived before these.")
_METADATA = _header(
    "Upload-Metadata",
    {
        "type": "string",
        "maxLength": 4096,
        "pattern": f"^kind (bW9kZWw=|ZGF0YXNldA==)(,filename {_BASE64})?$",
    },
    "`kind`, which is model or dataset, and perhaps `filename`; values in base64. "
    "Other keys, in any order, are told again and not used.",
)
_CHECKSUM = _header(
    "Upload-Checksum",
    {"type": "string", "pattern": f"^({'|'.join(ALGORITHMS)}) {_BASE64}$"},
    "What these bytes hash to, in base64.",
    required=False,
)
_OVERRIDE = _header(
    "X-HTTP-Method-Override", {"enum": ["PATCH", "DELETE"]}, "The method that is meant."
)


def _told(**headers: dict[str, Any]) -> dict[str, Any]:
    spoken = {"Tus-Resumable": {"schema": {"type": "string", "const": VERSION}}}
    named = {name.replace("_", "-"): {"schema": schema} for name, schema in headers.items()}
    return {"headers": spoken | named}


_TEXT = {"type": "string"}
_CHUNK = {
    "required": True,
    "content": {
        CHUNK_TYPE: {
            "schema": {"type": "string", "contentMediaType": "application/octet-stream"}
        }
    },
}

ABILITIES: dict[int | str, dict[str, Any]] = {
    204: _told(Tus_Version=_TEXT, Tus_Extension=_TEXT, Tus_Max_Size=_BYTES)
}
ANNOUNCED: dict[int | str, dict[str, Any]] = {201: _told(Location=_TEXT, Upload_Expires=_TEXT)}
STANDING: dict[int | str, dict[str, Any]] = {
    200: _told(Upload_Offset=_BYTES, Upload_Length=_BYTES, Upload_Expires=_TEXT)
}
SENT: dict[int | str, dict[str, Any]] = {
    204: _told(Upload_Offset=_BYTES, Upload_Expires=_TEXT, Location=_TEXT)
}

ANNOUNCING = {"parameters": [_SPOKEN, _LENGTH, _METADATA]}
ASKING = {"parameters": [_SPOKEN]}
SENDING = {"parameters": [_SPOKEN, _OFFSET, _CHECKSUM], "requestBody": _CHUNK}
MEANING = {"parameters": [_SPOKEN, _OVERRIDE]}
