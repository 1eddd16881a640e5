"""Logs of all our processes: one line per event, as JSON or for people, never two of one.

What was said about a job carries its id; in the web process also that of the request.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]

#: What the current thread or request is about; on every line that it writes.
_about: ContextVar[Mapping[str, str]] = ContextVar("about", default={})  # noqa: B039 - never changed, only replaced

_LONGEST = 4000


@contextlib.contextmanager
def about(**ids: str) -> Iterator[None]:
    """Put these ids (job_id, request_id, ...) on every line that is logged inside."""
    token = _about.set({**_about.get(), **ids})
    try:
        yield
    finally:
        _about.reset(token)


class JsonLines(logging.Formatter):
    """One JSON object a line; json itself escapes whatever could end or colour a line."""

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_LONGEST],
            "process": record.process,
            **_about.get(),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)[-_LONGEST:]
        return json.dumps(content, default=str)


class PlainLines(logging.Formatter):
    """For people: what is not printable is escaped, so that no message forges a line."""

    def format(self, record: logging.LogRecord) -> str:
        ids = "".join(f" {name}={value}" for name, value in _about.get().items())
        at = datetime.fromtimestamp(record.created, UTC).isoformat(sep=" ", timespec="seconds")
        line = f"{at[:19]} {record.levelname} {record.name}: {record.getMessage().strip()}{ids}"
        if record.exc_info:
            line += f" | {self.formatException(record.exc_info)}"
        return "".join(c if c.isprintable() else _escaped(c) for c in line[:_LONGEST])


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def set_up_logging(log_format: LogFormat, *, level: int = logging.INFO) -> None:
    """Have everything that this process logs go to stderr in one format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if log_format == "json" else PlainLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in ("uvicorn", "uvicorn.error", "celery", "celery.task", "kombu"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    # They log at this level what our own lines say better.
    for name in ("alembic", "httpx", "botocore", "boto3", "s3transfer", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
