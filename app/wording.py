"""A job in words: what its page says and shows."""

import json
import re
from typing import Any

from app.forms import label
from app.schemas import API, JobView
from worker.jobs import Job

STAGES = ("queued", "convert", "clean", "calibrate", "compress", "search", "measure", "report")
_HAS_A_BUTTON = {"model.onnx", "report.json", "report.html", "bundle.zip"}

VERDICTS: dict[str, tuple[str, str]] = {
    "better": ("Better", "good"),
    "not_better": ("The original stays", "plain"),
    "as_asked": ("As asked", "good"),
    "as_asked_but_slower": ("As asked, but slower", "warn"),
    "as_asked_but_worse": ("As asked, but less accurate", "bad"),
    "not_verified": ("Not verified", "warn"),
    "not_measured_here": ("Not measured here", "plain"),
}
"""Label and tone of each outcome."""

_BUT = {
    "as_asked_but_worse": ", but less accurate than asked for",
    "not_verified": "; whether it still answers as before is not verified",
    "not_measured_here": "; its speed cannot be measured on this machine",
}


def job_page(job: Job, view: JobView) -> dict[str, Any]:
    """What the job's template needs besides the view."""
    outcome = (view.summary.verdict if view.summary else None) or ""
    verdict, tone = VERDICTS.get(outcome, ("Done", "plain"))
    return {
        "ended": job.status.ended,
        "stages": _stages(job),
        "stage_index": _stages(job).index(job.stage) if job.stage in _stages(job) else 0,
        "verdict": verdict,
        "headline": headline(view),
        "sentences": sentences(view.summary.sentence if view.summary else ""),
        "tone": tone,
        "size_change": size_change(view),
        "files": [
            (name, f"{API}/jobs/{job.id}/files/{name}")
            for name in sorted(job.results)
            if name not in _HAS_A_BUTTON
        ],
        "recipe_summary": recipe_summary(job.recipe),
        "recipe_text": json.dumps(job.recipe, indent=2),
    }


def headline(view: JobView) -> str:
    """What came out, in one short sentence, as `3.92× smaller and 1.78× as fast.` is."""
    summary = view.summary
    if summary is None:
        return ""
    if summary.verdict == "not_better":
        return "Nothing better was found: you get the original back."
    said = [size_change(view)] if size_change(view) not in ("", "unchanged") else []
    if summary.speedup is not None and not 0.98 < summary.speedup < 1.02:
        said.append(f"{summary.speedup:.2f}× as fast")
    gained = " and ".join(said) or "same size and speed"
    return f"{gained[0].upper()}{gained[1:]}{_BUT.get(summary.verdict or '', '')}."


def sentences(text: str | None) -> list[str]:
    """The verdict, sentence by sentence, without the words that the label says already."""
    found = re.split(r"(?<=[.!?]) +(?=[A-Z0-9])", text or "")
    return [one for one in found if one and one != "Done as asked."]


def size_change(view: JobView) -> str:
    """How the file's size changed: `3.9× smaller`."""
    summary = view.summary
    if summary is None or not summary.bytes_before or not summary.bytes_after:
        return ""
    ratio = summary.bytes_before / summary.bytes_after
    if 0.995 < ratio < 1.005:
        return "unchanged"
    return f"{ratio:.2f}× smaller" if ratio > 1 else f"{1 / ratio:.2f}× larger"


def recipe_summary(recipe: dict[str, Any]) -> str:
    passes = recipe.get("passes", "auto")
    if isinstance(passes, str):
        return f"automatic, for {recipe.get('goal', {}).get('objective', 'latency')}"
    return ", then ".join(label(step["method"]).lower() for step in passes)


def _stages(job: Job) -> tuple[str, ...]:
    """The stages that this job can pass through: only the automatic mode searches."""
    searches = isinstance(job.recipe.get("passes"), str)
    return tuple(stage for stage in STAGES if searches or stage != "search")
