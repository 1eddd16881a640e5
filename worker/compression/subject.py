"""The model under compression: its file, its data, and what every measurement of it needs."""

import hashlib
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from worker.compression import graph
from worker.compression.benchmark import Quiet, timed_feeds
from worker.compression.calibration import (
    ENOUGH,
    CalibrationSet,
    Feed,
    Source,
    Split,
    by_rows,
    carried,
    open_samples,
    split,
    states,
    synthetic,
)
from worker.compression.errors import InvalidData, first_line
from worker.compression.feeding import check_tokens, judge_samples
from worker.compression.fidelity import (
    Decoded,
    Examined,
    OutputKind,
    OwnMetric,
    Pair,
    Reference,
    Scored,
    Yardstick,
    examine,
    output_kinds,
    pair,
    scores,
)
from worker.compression.passes import Context
from worker.compression.preflight import Preflight, preflight, slowdown
from worker.compression.recipe import Recipe
from worker.compression.report import Model, Warned

Progress = Callable[[str, float, str], None]
"""Stage, share of the whole job (0..1), message."""
Measure = Callable[[Path, Feed], int | None]
"""Peak memory, in bytes, of a fresh process that runs a model file once on this feed."""


@dataclass(frozen=True)
class Subject:
    """`original` is the ONNX file that results are judged against; `model` the upload.

    `deadline` is the `time.monotonic()` at which the report should be written; `memo` is what
    passes keep of one call for the next.
    """

    original: Path
    upload: Path
    model: Model
    recipe: Recipe
    split: Split
    kinds: dict[str, OutputKind]
    feeds: list[Feed]
    workdir: Path
    progress: Progress
    measure: Callable[[Path], int | None]
    quiet: Quiet
    heard: Callable[[], list[Warned]]
    deadline: float
    sha256: dict[str, str]
    inputs: Mapping[str, Any] | None = None
    cache: Path | None = None
    expected: Preflight | None = None
    doubt: str | None = None
    """Why the original's answers on these samples prove nothing."""
    slowdown: float = 1.0
    """How much longer work takes here than its processor time: other work has the cores."""
    memo: dict[str, object] = field(default_factory=dict)
    metric: OwnMetric | None = None
    scores: np.ndarray | None = None
    """What `metric` says of the original."""
    pair: Pair | None = None
    """Its encoder or decoder, with which it is judged."""

    @property
    def verified(self) -> bool:
        """Whether the report may speak of fidelity: real samples, and enough of them.

        Rows of a batch count, where the model treats them apart.
        """
        if self.metric is not None:
            return True
        report = self.split.report
        enough = len(report) >= ENOUGH or report.size >= ENOUGH
        return enough and report.source != "synthetic" and self.doubt is None

    def context(self, first: float, last: float) -> Context:
        """What passes may use; their progress fills the job's from `first` to `last`."""

        def progress(share: float, message: str) -> None:
            self.progress("compress", first + (last - first) * min(max(share, 0), 1), message)

        return Context(
            workdir=self.workdir,
            calibration=self.split.calibrate,
            target=self.recipe.target,
            seed=self.recipe.seed,
            progress=progress,
            measure=self.measure,
            cache=self.memo,
        )

    def reference(self, samples: CalibrationSet, name: str) -> Yardstick:
        folder = self.workdir / f"reference-{name}"
        folder.mkdir(exist_ok=True)
        found = Reference(self.original, samples, self.kinds, workdir=folder)
        if self.metric is not None and self.scores is not None:
            return Scored(found, self.metric, self.scores)
        return found if self.pair is None else Decoded(found, self.pair, samples)


def prepare(
    original: Path,
    recipe: Recipe,
    *,
    workdir: Path,
    progress: Progress,
    measure: Measure,
    quiet: Quiet,
    heard: Callable[[], list[Warned]],
    deadline: float = math.inf,
    name: str | None = None,
    format: str = "onnx",
    upload: Path | None = None,
    calibration: Path | None = None,
    evaluation: Path | None = None,
    inputs: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    metric: OwnMetric | None = None,
    partner: Path | None = None,
) -> Subject:
    """Read the data, run the original once and say what its outputs are.

    Raises:
        InvalidModel: the original does not load or run in ONNX Runtime.
        InvalidData: the data does not fit the model.
        InvalidRecipe: the goal names an output that is not there.
    """
    progress("clean", 0.01, "reading the model and the data")
    begun = time.monotonic(), time.process_time()
    upload = upload or original
    given, judged = _samples(original, recipe, workdir, calibration, evaluation, inputs)
    rows = by_rows(original, given), judged and by_rows(original, judged)
    parts = split(*rows, seed=recipe.seed)
    # Timed are batches as they were sent, however they are cut into samples.
    cut = len(rows[0]) != len(given) or len(rows[1] or ()) != len(judged or ())
    feeds = timed_feeds((judged or given) if cut else parts.report, recipe.target.shapes)
    examined = _examined(original, recipe, parts)
    kinds = examined.kinds
    check_tokens(original, parts.calibrate)
    _try_out(original, feeds[0])
    judge_samples(original, parts.calibrate, kinds, workdir=workdir)
    expected = preflight(
        original,
        feeds[0],
        samples=_count(parts),
        time_budget_s=recipe.goal.time_budget_s,
        threads=recipe.target.threads,
    )
    progress("clean", 0.02, expected.sentence)
    files = {"model": upload, "calibration": calibration, "evaluation": evaluation}
    files["partner"] = partner
    sha256 = {key: digest(path) for key, path in files.items() if path is not None}
    return Subject(
        original=original,
        upload=upload,
        model=Model(
            name=name or upload.name,
            format=format,
            bytes=_bytes_of(upload, format),
            sha256=sha256["model"],
        ),
        recipe=recipe,
        split=parts,
        kinds=kinds,
        feeds=feeds,
        workdir=workdir,
        progress=progress,
        measure=lambda path: measure(path, feeds[0]),
        quiet=quiet,
        heard=heard,
        deadline=deadline,
        sha256=sha256,
        inputs=inputs,
        cache=cache,
        expected=expected,
        doubt=examined.doubt,
        slowdown=slowdown(*begun),
        metric=metric,
        scores=None if metric is None else scores(metric, original),
        pair=None if partner is None else _pair(original, partner, inputs),
    )


def _pair(original: Path, partner: Path, inputs: Mapping[str, Any] | None) -> Pair:
    """Decoding begins with the `value` of `decoder_start`, a name that no input has, else 0."""
    given = (inputs or {}).get("decoder_start", {})
    return pair(original, partner, start=int(given.get("value", 0)))


def _examined(original: Path, recipe: Recipe, parts: Split) -> Examined:
    """What outputs are: those carried over are states, unless the recipe says otherwise.

    Noise that was made up shows how the original answers noise, so only kinds are inferred.
    """
    samples = parts.report
    carries: dict[str, OutputKind] = dict.fromkeys(samples.carried.values(), "state")
    stated = {**carries, **recipe.goal.outputs}
    kinds = output_kinds(graph.load(original), stated)
    if samples.source == "synthetic":
        return Examined(kinds)
    return examine(original, samples, kinds, stated=stated)


def _count(parts: Split) -> int:
    """Real samples that there are."""
    sets = {id(one): one for one in (parts.calibrate, parts.select, parts.report)}
    return sum(one.size for one in sets.values() if one.source != "synthetic")


def _samples(
    original: Path,
    recipe: Recipe,
    workdir: Path,
    calibration: Path | None,
    evaluation: Path | None,
    inputs: Mapping[str, Any] | None,
) -> tuple[CalibrationSet, CalibrationSet | None]:
    held = states(inputs or {}, graph.inputs(original), graph.outputs(original))
    inner = {state.input.name for state in held}
    specs = [spec for spec in graph.inputs(original) if spec.name not in inner]

    def opened(path: Path, source: Source) -> CalibrationSet:
        folder = workdir / source
        folder.mkdir(exist_ok=True)
        found = open_samples(path, specs, workdir=folder, source=source, images=recipe.images)
        return carried(original, found, held, workdir=folder) if held else found

    given = {key: value for key, value in (inputs or {}).items() if key not in inner}
    shapes = {key: value["shape"] for key, value in given.items() if "shape" in value}
    judged = opened(evaluation, "evaluation") if evaluation else None
    if calibration:
        return opened(calibration, "calibration"), judged
    if judged is not None:
        # A part of the evaluation data beats noise; the split keeps the parts apart.
        return judged, None
    made = synthetic(specs, seed=recipe.seed, shapes=shapes)
    return carried(original, made, held, workdir=workdir) if held else made, None


def _try_out(original: Path, feed: Feed) -> None:
    try:
        graph.session(original).run(None, feed)
    except Exception as error:
        shapes = {name: value.shape for name, value in feed.items()}
        raise InvalidData(
            f"the model does not run on the first sample: {first_line(error)}",
            hint=f"check the shapes and types of the data: {shapes}",
            code="model_does_not_run",
        ) from error


def _bytes_of(upload: Path, format: str) -> int:
    return graph.file_bytes(upload) if format == "onnx" else upload.stat().st_size


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_model(source: Path, destination: Path) -> None:
    """Copy an ONNX file byte for byte, with its external data under the names it refers to."""
    shutil.copyfile(source, destination)
    for data in graph.external_files(source):
        shutil.copyfile(data, destination.parent / data.name)
