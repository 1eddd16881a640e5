"""Ids in addresses and forms: one that we cannot have made never reaches a query."""

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from app.errors import Refusal

PATTERN = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
SCHEMA = {"type": "string", "format": "uuid", "pattern": PATTERN}

_UUID = re.compile(PATTERN.strip("^$"))


def is_id(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def _check(text: str) -> str:
    if is_id(text):
        return text
    raise Refusal("not_found", f"there is nothing with the id {text[:64]!r}")


def _check_cursor(text: str) -> str:
    if is_id(text):
        return text
    raise Refusal("invalid_cursor", f"{text[:64]!r} is not a cursor of this list")


Id = Annotated[str, AfterValidator(_check), WithJsonSchema(SCHEMA)]
Cursor = Annotated[str, AfterValidator(_check_cursor), WithJsonSchema(SCHEMA)]
