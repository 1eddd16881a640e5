"""keys: make, list and revoke the keys of the service that uses a data folder."""

import json
import re
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sqlalchemy.exc import SQLAlchemyError

from app.cli.refusals import DONE, CannotDo, printable
from worker.jobs import SCOPES, Key, NotFound
from worker.services import Services, build_services
from worker.settings import Settings

_OWNER = re.compile(r"[a-z0-9_-][a-z0-9._-]{0,63}")
_DAY_S = 24 * 3600


def keys(arguments: Namespace, settings: Settings) -> int:
    """Do what was asked with the keys in the settings' database."""
    with records(settings) as services:
        return {"create": _create, "list": _list, "revoke": _revoke}[arguments.verb](
            arguments, services
        )


@contextmanager
def records(settings: Settings) -> Iterator[Services]:
    """The records, with the newest schema.

    Raises:
        CannotDo: the database cannot be reached.
    """
    try:
        services = build_services(settings, pooled=False)
        services.migrate()
        yield services
        services.close()
    except (SQLAlchemyError, OSError) as error:
        raise CannotDo(
            f"the records cannot be reached: {type(error).__name__}",
            code="unavailable",
            hint="check MODELPRESS_DATA_DIR, --data-dir or MODELPRESS_DATABASE_URL",
        ) from error


def _create(arguments: Namespace, services: Services) -> int:
    key, text = services.keys.create(
        _owner(arguments.owner),
        arguments.name,
        scopes=_scopes(arguments.scopes),
        lifetime_seconds=None if arguments.days is None else arguments.days * _DAY_S,
    )
    if arguments.json:
        sys.stdout.write(json.dumps(_shown(key) | {"key": text}) + "\n")
        return DONE
    sys.stderr.write(f"key {key.id} of {key.owner_id}: it is shown once, so keep it\n")
    sys.stdout.write(text + "\n")
    return DONE


def _list(arguments: Namespace, services: Services) -> int:
    found = [_shown(key) for key in services.keys.all()]
    if arguments.json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return DONE
    lines = [
        f"{key['id']}  {key['state']:8}{key['owner']:16}{key['scopes']:18}"
        f"{key['last_used_at'] or 'never used':28}{key['name']}"
        for key in found
    ]
    sys.stdout.write(printable("\n".join(lines or ["there are no keys"])) + "\n")
    return DONE


def _revoke(arguments: Namespace, services: Services) -> int:
    try:
        key = services.keys.revoke(arguments.id)
    except NotFound as error:
        raise CannotDo(
            error.message, code=error.code, hint="`modelpress keys list` has their ids"
        ) from None
    sys.stderr.write(f"key {key.id} of {key.owner_id} is revoked\n")
    return DONE


def _owner(text: str) -> str:
    if _OWNER.fullmatch(text):
        return text
    raise CannotDo(
        f"{text[:60]!r} cannot name an owner",
        code="invalid_parameter",
        hint="lower-case letters, digits, dots, dashes and underscores; at most 64",
    )


def _scopes(text: str) -> list[str]:
    scopes = [scope.strip() for scope in text.split(",")]
    if set(scopes) <= set(SCOPES):
        return scopes
    raise CannotDo(
        f"{text[:60]!r} are no scopes",
        code="invalid_parameter",
        hint=f"choose of {','.join(SCOPES)}",
    )


def _shown(key: Key) -> dict[str, str | None]:
    expired = key.expires_at is not None and key.expires_at < datetime.now(UTC)
    times = {
        name: at.isoformat(timespec="seconds") if at else None
        for name, at in (
            ("created_at", key.created_at),
            ("expires_at", key.expires_at),
            ("last_used_at", key.last_used_at),
        )
    }
    return {
        "id": key.id,
        "owner": key.owner_id,
        "name": key.name,
        "scopes": ",".join(sorted(key.scopes)),
        "state": "revoked" if key.revoked_at else "expired" if expired else "live",
        **times,
    }
