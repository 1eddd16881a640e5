"""Pages by id: a UUIDv7 sorts by time, so the last one seen is a cursor that skips nothing."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import Column, ColumnElement

from worker.jobs.errors import InvalidCursor


class _HasId(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_HasId)


def before(column: Column[Any], cursor: str | None) -> list[ColumnElement[bool]]:
    """Say what comes after a cursor, newest first."""
    if cursor is None:
        return []
    try:
        return [column < str(UUID(cursor))]
    except ValueError:
        raise InvalidCursor(f"{cursor[:64]!r} is not a cursor of this list") from None


def split_page(found: Sequence[T], limit: int) -> tuple[list[T], str | None]:
    """Split one more than a page into the page and its cursor."""
    items = list(found[:limit])
    return items, items[-1].id if len(found) > limit else None
