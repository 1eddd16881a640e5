"""The report as one page that needs nothing else: no script, no file, no network."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from worker.compression.html import channels, front, layers, pictures, words
from worker.compression.report import Report

__all__ = ["render"]

FOLDER: Final = Path(__file__).parent


def render(report: Report) -> str:
    """The page. Names of files, layers and outputs are untrusted: every one is escaped."""
    style = (FOLDER / "report.css").read_text(encoding="utf-8")
    headline, stop, details = report.verdict.sentence.partition(". ")
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            headline=headline + stop.strip(),
            details=details,
            style=Markup(style),  # noqa: S704 - our own file
            style_hash=_hash(style),
            outcome=words.OUTCOMES[report.verdict.outcome],
            recipe=json.dumps(
                report.reproduce.recipe.model_dump(mode="json"), indent=2, ensure_ascii=False
            ),
        )
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for verb in (
        words.size, words.number, words.milliseconds, words.times, words.percent, words.decibel,
    ):  # fmt: skip
        environment.filters[verb.__name__] = verb
    environment.globals.update(pictures=pictures, layers=layers, front=front, channels=channels)
    return environment


def _hash(style: str) -> str:
    """The style's hash for the page's own content policy, which forbids everything else."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
