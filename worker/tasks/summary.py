"""The few figures of a report that the list of jobs shows.

The report comes out of the sandbox, so it is checked like anything else that a stranger wrote.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class Unreadable(Exception):
    """The report lacks what every report has."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Verdict(_Part):
    outcome: str
    sentence: str
    drop: float | None
    sqnr_db: float | None


class _Size(_Part):
    bytes: int


class _Percentiles(_Part):
    p50: float


class _Latency(_Part):
    before: _Percentiles
    after: _Percentiles
    speedup: float
    verdict: str


class _Warned(_Part):
    code: str
    message: str


class _Report(_Part):
    verdict: _Verdict
    before: _Size
    after: _Size
    latency: list[_Latency]
    warnings: list[_Warned]


def summarize(report: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Summary (DESIGN.md 3.2) and warnings of a report.

    Raises:
        Unreadable: it is not a report.
    """
    try:
        read = _Report.model_validate(report)
    except ValidationError as error:
        raise Unreadable(f"{error.error_count()} fields are missing or wrong") from None
    # The first entry is the setting that was asked for.
    timed = read.latency[0] if read.latency else None
    summary = {
        "bytes_before": read.before.bytes,
        "bytes_after": read.after.bytes,
        "latency_ms_before": timed.before.p50 if timed else None,
        "latency_ms_after": timed.after.p50 if timed else None,
        # A figure that could not be relied on is no claim to show beside the download.
        "speedup": timed.speedup if timed and timed.verdict != "unreliable" else None,
        "drop": read.verdict.drop,
        "sqnr_db": read.verdict.sqnr_db,
        "verdict": read.verdict.outcome,
        "sentence": read.verdict.sentence,
    }
    return summary, [warned.model_dump() for warned in read.warnings]
