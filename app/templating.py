"""The page templates and how figures are written in them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.templating import Jinja2Templates

from app.access import SESSION_COOKIE
from app.csrf import token_for

FOLDER = Path(__file__).parent / "templates"


def _session(request: Request) -> dict[str, Any]:
    """For the button that ends a browser's session; None where there is none."""
    has_session = SESSION_COOKIE in request.cookies
    return {"sign_out_token": token_for(request) if has_session else None}


templates = Jinja2Templates(directory=FOLDER, context_processors=[_session])


def file_size(count: int | None) -> str:
    """Bytes for people: 1.4 MB."""
    if count is None:
        return "–"
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    digits = 0 if units[0] == "bytes" or size >= 100 else 1
    return f"{size:.{digits}f} {units[0]}"


def milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} ms"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.3g} %"


def moment(value: datetime) -> str:
    return value.strftime("%Y-%m-%d %H:%M UTC")


def duration(started: datetime | None, finished: datetime | None) -> str:
    """Time between two moments, or until now: 4 s, 2 min 5 s, 1 h 2 min."""
    if started is None:
        return ""
    seconds = max(0, int(((finished or datetime.now(UTC)) - started).total_seconds()))
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


for written in (file_size, milliseconds, percent, moment, duration):
    templates.env.filters[written.__name__] = written
