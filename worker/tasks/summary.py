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


class _Size(_Part):
    bytes: int


class _Percentiles(_Part):
    p50: float


class _Latency(_Part):
    before: _Percentiles
    after: _Percentiles
    speedup: float


class _Channel(_Part):
    sqnr_db: float | None


class _Output(_Part):
    kind: str
    drop: float | None
    worst_channel: _Channel | None


class _Fidelity(_Part):
    outputs: list[_Output]


class _Accuracy(_Part):
    drop: float


class _Warned(_Part):
    code: str
    message: str


class _Report(_Part):
    verdict: _Verdict
    before: _Size
    after: _Size
    latency: list[_Latency]
    fidelity: _Fidelity | None
    accuracy: _Accuracy | None
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
        "speedup": timed.speedup if timed else None,
        "drop": _drop(read),
        "sqnr_db": _worst_sqnr(read),
        "verdict": read.verdict.outcome,
        "sentence": read.verdict.sentence,
    }
    return summary, [warned.model_dump() for warned in read.warnings]


def _drop(report: _Report) -> float | None:
    if report.accuracy is not None:
        return report.accuracy.drop
    outputs = report.fidelity.outputs if report.fidelity else []
    return max((output.drop for output in outputs if output.drop is not None), default=None)


def _worst_sqnr(report: _Report) -> float | None:
    outputs = report.fidelity.outputs if report.fidelity else []
    worst = [out.worst_channel for out in outputs if out.kind == "value"]
    found = [channel.sqnr_db for channel in worst if channel is not None]
    return min((sqnr for sqnr in found if sqnr is not None), default=None)
