"""API keys, and the browser sessions that are opened with one. Only hashes are kept.

The secret is 256 random bits, so a plain SHA-256 is as good as a slow hash.
"""

import hmac
import re
import secrets
import string
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, delete, insert, or_, select, update

from worker.jobs.database import Database, moment, now
from worker.jobs.errors import NotFound
from worker.jobs.records import Key
from worker.jobs.tables import api_keys, sessions

SCOPES = ("read", "write", "admin")
_TEXT = re.compile(r"mp_([a-z0-9]{8})_[A-Za-z0-9_-]{43}")
_LETTERS = string.ascii_lowercase + string.digits
_LIVE = (
    api_keys.c.revoked_at.is_(None),
    or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now()),
)


class KeyStore:
    """Keys of all owners, for the operator; and the one a request brings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        owner_id: str,
        name: str,
        *,
        scopes: Iterable[str] = ("read", "write"),
        lifetime_seconds: float | None = None,
    ) -> tuple[Key, str]:
        """Make a key; its text is given here and never again."""
        key_id = "".join(secrets.choice(_LETTERS) for _ in range(8))
        text = f"mp_{key_id}_{secrets.token_urlsafe(32)}"
        values = {
            "id": key_id,
            "owner_id": owner_id,
            "name": name,
            "sha256": _hash(text),
            "scopes": sorted(scopes),
            "created_at": now(),
            "expires_at": None if lifetime_seconds is None else now() + lifetime_seconds,
        }
        with self._database.write() as connection:
            row = connection.execute(insert(api_keys).values(values).returning(api_keys)).one()
        return _key_of(row), text

    def all(self) -> list[Key]:
        """Every key, revoked ones too, oldest first."""
        rows = self._database.read(select(api_keys).order_by(api_keys.c.created_at))
        return [_key_of(row) for row in rows]

    def revoke(self, key_id: str) -> Key:
        """End a key and its sessions, for good."""
        with self._database.write() as connection:
            row = connection.execute(
                update(api_keys)
                .where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
                .values(revoked_at=now())
                .returning(api_keys)
            ).one_or_none()
            connection.execute(delete(sessions).where(sessions.c.key_id == key_id))
        if row is None:
            raise NotFound("live key", key_id)
        return _key_of(row)

    def find(self, text: str) -> Key | None:
        """The live key with this text; None for whatever else."""
        shape = _TEXT.fullmatch(text)
        if shape is None:
            return None
        rows = self._database.read(
            select(api_keys).where(api_keys.c.id == shape.group(1), *_LIVE)
        )
        if not rows or not hmac.compare_digest(rows[0].sha256, _hash(text)):
            return None
        return _key_of(rows[0])

    def used(self, key_id: str) -> None:
        with self._database.write() as connection:
            mine = update(api_keys).where(api_keys.c.id == key_id)
            connection.execute(mine.values(last_used_at=now()))

    def were_made(self) -> bool:
        """Whether there ever was a key: from then on the service asks for one."""
        return bool(self._database.read(select(api_keys.c.id).limit(1)))

    def any_live(self) -> bool:
        return bool(self._database.read(select(api_keys.c.id).where(*_LIVE).limit(1)))

    def open_session(self, key: Key, *, seconds: float) -> str:
        """Make the token of a browser that showed this key."""
        token = secrets.token_urlsafe(32)
        with self._database.write() as connection:
            connection.execute(delete(sessions).where(sessions.c.expires_at < now()))
            connection.execute(
                insert(sessions).values(
                    sha256=_hash(token), key_id=key.id, expires_at=now() + seconds
                )
            )
        return token

    def of_session(self, token: str) -> Key | None:
        """The live key that a session was opened with."""
        rows = self._database.read(
            select(api_keys)
            .join(sessions, sessions.c.key_id == api_keys.c.id)
            .where(sessions.c.sha256 == _hash(token), sessions.c.expires_at > now(), *_LIVE)
        )
        return _key_of(rows[0]) if rows else None

    def close_session(self, token: str) -> None:
        with self._database.write() as connection:
            connection.execute(delete(sessions).where(sessions.c.sha256 == _hash(token)))


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _key_of(row: Row[Any]) -> Key:
    def at(seconds: float | None) -> Any:  # noqa: ANN401 - datetime | None, of a column
        return None if seconds is None else moment(seconds)

    return Key(
        id=row.id,
        owner_id=row.owner_id,
        name=row.name,
        scopes=frozenset(row.scopes),
        created_at=moment(row.created_at),
        expires_at=at(row.expires_at),
        revoked_at=at(row.revoked_at),
        last_used_at=at(row.last_used_at),
    )
