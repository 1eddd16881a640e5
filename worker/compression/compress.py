"""The front door's verb: one model, one recipe, one report."""

import math
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker.compression.benchmark import Quiet, host_quiet
from worker.compression.bundle import write_bundle
from worker.compression.calibration import Feed
from worker.compression.errors import CompressionWarning
from worker.compression.fidelity import OwnMetric
from worker.compression.pipeline import by_hand
from worker.compression.recipe import Recipe
from worker.compression.report import Report, listening
from worker.compression.search import curve, search
from worker.compression.snippet import fed_back
from worker.compression.subject import Measure, prepare


def compress(
    model: Path | str,
    recipe: str | Mapping[str, Any] | Recipe | None = "auto",
    *,
    out: Path | str,
    name: str | None = None,
    format: str = "onnx",
    upload: Path | None = None,
    notes: Sequence[str] = (),
    calibration: Path | None = None,
    evaluation: Path | None = None,
    inputs: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    metric: OwnMetric | None = None,
    partner: Path | None = None,
    begun: float | None = None,
    progress: Callable[[str, float, str], None] | None = None,
    measure: Measure | None = None,
    quiet: Quiet = host_quiet,
) -> Report:
    """Compress the ONNX file `model`; write the result and its proofs to `out`.

    These are model.onnx, report.json, report.html and bundle.zip.

    `upload` and `format` tell what was uploaded where `model` is its conversion, and `notes`
    what the user should know of that conversion: the report lists them as warnings. `measure`
    gives the peak memory in bytes of a fresh process that runs a model file on a feed; without
    it none is reported. `cache` is a folder where a search leaves what another one on the same
    model and data need not find out again. `metric` takes the place of labels. `partner` is the
    decoder that goes with an encoder, or the reverse: the two are judged by greedy decoding.
    `begun` is the `time.monotonic()` from which the time budget counts, by default now.

    Raises:
        CompressionError: the model, the recipe or the data is refused; the message says why.
    """
    wanted, out = Recipe.parse(recipe), Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".work-", dir=out) as workdir, listening() as heard:
        for note in notes:
            warnings.warn(CompressionWarning(note, code="conversion_note"), stacklevel=2)
        subject = prepare(
            Path(model),
            wanted,
            workdir=Path(workdir),
            progress=progress or _silent,
            measure=measure or _unmeasured,
            quiet=quiet,
            heard=heard,
            deadline=_deadline(wanted, begun),
            name=name,
            format=format,
            upload=upload,
            calibration=calibration,
            evaluation=evaluation,
            inputs=inputs,
            cache=cache,
            metric=metric,
            partner=partner,
        )
        if wanted.passes == "auto":
            report = search(subject, out)
        elif any(len(one.variants()) > 1 for one in wanted.passes):
            report = curve(subject, wanted.passes, out)
        else:
            report = by_hand(subject, wanted.passes, out)
        write_bundle(
            out,
            report,
            original=subject.original,
            samples=subject.split.report,
            kinds=subject.kinds,
            states=fed_back(inputs),
            workdir=subject.workdir,
        )
        return report


def _deadline(recipe: Recipe, begun: float | None) -> float:
    """Only a search has a budget: by hand, what was asked takes the time it takes."""
    if recipe.passes != "auto":
        return math.inf
    return (time.monotonic() if begun is None else begun) + recipe.goal.time_budget_s


def _silent(stage: str, share: float, message: str) -> None:
    """Nobody asked."""


def _unmeasured(path: Path, feed: Feed) -> None:
    """A fresh process is the caller's to start: the library starts none."""
