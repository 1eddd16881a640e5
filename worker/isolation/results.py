"""Files that a child left behind, opened as one opens a stranger's letter."""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from worker.isolation.ended import problem
from worker.isolation.messages import (
    RESULT_BYTES,
    RESULT_FILE,
    STAGES,
    ProtocolError,
    strict_json,
)

#: One folder deep at most, names of our own making.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


#: More than any result of ours has: files, wrong fields of a recipe, characters of a message.
FILES, ERRORS, TEXT = 64, 100, 4_000


class UnsafeFile(Exception):
    """A file that a child made is not the plain file that it should be."""


@contextmanager
def open_result(folder: Path, name: str, *, max_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Open a file of a finished job: no links on the way, a regular file with one name only.

    Raises:
        UnsafeFile: it is anything else, is missing or is larger than `max_bytes`.
    """
    try:
        descriptor = _open(folder, PurePosixPath(name).parts)
    except OSError as error:
        raise UnsafeFile(f"{name} cannot be opened: {error.strerror}") from None
    try:
        _check(name, os.fstat(descriptor), max_bytes)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def _open(folder: Path, parts: tuple[str, ...]) -> int:
    if not 1 <= len(parts) <= 2 or not all(NAME.fullmatch(part) for part in parts):
        raise UnsafeFile(f"{'/'.join(parts)[:120]!r} is not a name that a result may have")
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            deeper = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            inner = os.open(part, deeper, dir_fd=parent)
            os.close(parent)
            parent = inner
        # O_NONBLOCK: opening a FIFO must not wait for somebody to write into it.
        plain = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(parts[-1], plain, dir_fd=parent)
    finally:
        os.close(parent)


def _check(name: str, found: os.stat_result, max_bytes: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeFile(f"{name} is not a regular file")
    if found.st_nlink != 1:
        raise UnsafeFile(f"{name} has {found.st_nlink} names")
    if max_bytes is not None and found.st_size > max_bytes:
        raise UnsafeFile(f"{name} is larger than {max_bytes} bytes")


def read_result(folder: Path) -> dict[str, Any] | None:
    """What a finished child says about its job, or None where it left nothing that counts."""
    try:
        with open_result(folder, RESULT_FILE, max_bytes=RESULT_BYTES) as file:
            content = strict_json(file.read(RESULT_BYTES + 1))
        return _checked(content, folder)
    except (UnsafeFile, ProtocolError):
        return None


def _checked(content: Any, folder: Path) -> dict[str, Any]:  # noqa: ANN401 - a stranger's JSON
    if not isinstance(content, dict) or not isinstance(content.get("ok"), bool):
        raise ProtocolError("result.json is no result")
    if not content["ok"]:
        return {"ok": False, "error": _checked_error(content.get("error"))}
    if not any(isinstance(content.get(key), dict) for key in ("report", "inspection")):
        raise ProtocolError("result.json has neither report nor inspection")
    files = content.get("files", [])
    if not isinstance(files, list) or not all(isinstance(name, str) for name in files):
        raise ProtocolError("result.json lists something other than files")
    if len(files) > FILES or len(set(files)) < len(files):
        raise ProtocolError("result.json lists too many files")
    for name in files:
        with open_result(folder, name):
            pass
    return content


def _checked_error(error: object) -> dict[str, Any]:
    """A problem with nothing in it but text of a sensible length."""
    if not isinstance(error, dict):
        raise ProtocolError("result.json failed without an error")
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", str(error.get("code"))):
        raise ProtocolError("result.json has an error without a code")
    if not isinstance(error.get("message"), str):
        raise ProtocolError("result.json has an error without a message")
    hint, stage, errors = error.get("hint"), error.get("stage"), error.get("errors")
    entries = errors if isinstance(errors, list) else []
    return problem(
        _text(error["message"]),
        code=error["code"],
        hint=None if hint is None else _text(hint),
        stage=stage if stage in STAGES else None,
        errors=[
            {_text(key): _text(value) for key, value in entry.items()}
            for entry in entries[:ERRORS]
            if isinstance(entry, dict)
        ],
    )


def _text(given: object) -> str:
    return str(given)[:TEXT]
