"""Ids in addresses and forms: one that we cannot have made never reaches a query."""

import re
from typing import Annotated

from pydantic import AfterValidator

from app.errors import Refusal

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_id(text: str) -> bool:
    return _UUID.fullmatch(text) is not None


def _check(text: str) -> str:
    if is_id(text):
        return text
    raise Refusal("not_found", f"there is nothing with the id {text[:64]!r}")


Id = Annotated[str, AfterValidator(_check)]
