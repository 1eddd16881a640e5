"""Judge a result against the original on held-out samples, and write the report beside it."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.compression import graph
from worker.compression.benchmark import (
    Latency,
    compressed_bytes,
    environment,
    race,
)
from worker.compression.fidelity import Accuracy, Fidelity
from worker.compression.html import render
from worker.compression.layers import blame
from worker.compression.passes import Pass
from worker.compression.portable import portable
from worker.compression.provenance import machine
from worker.compression.report import (
    Candidate,
    Report,
    Reproduce,
    Size,
    Step,
    Warned,
)
from worker.compression.snippet import fed_back, snippet
from worker.compression.subject import Subject, copy_model, digest
from worker.compression.verdict import Evidence, judge


@dataclass(frozen=True)
class Made:
    """The file after a pass, what is to be said of it, and `files` that go with it."""

    path: Path
    pass_: Pass
    seconds: float
    warnings: list[Warned]
    notes: dict[str, str]
    extra: dict[str, object] = field(default_factory=dict)
    files: Sequence[Path] = ()


@dataclass(frozen=True)
class Setting:
    """What a race is run with: the number of a feed of the subject, and threads."""

    feed: int
    threads: int

    def __str__(self) -> str:
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"


def assess(
    subject: Subject,
    made: Sequence[Made],
    *,
    out: Path,
    candidates: Sequence[Candidate] = (),
    warnings: Sequence[Warned] = (),
    reason: str | None = None,
) -> Report:
    """Measure the last of `made` (none: the original); write model and report to `out`.

    `reason` says why the original came back.
    """
    result = made[-1].path if made else subject.original
    out.mkdir(parents=True, exist_ok=True)
    copy_model(result, out / "model.onnx")
    for file in (file for step in made for file in step.files):
        shutil.copyfile(file, out / file.name)
    subject.progress("measure", 0.55, "comparing with the original on held-out samples")
    closeness = _closeness(subject, [step.path for step in made])
    timed = _latencies(subject, [step.path for step in made])
    fidelity, accuracy = closeness[-1]
    sizes = _sizes(subject, result)
    portability = portable(result, subject.split.calibrate) if made else None
    evidence = Evidence(
        goal=subject.recipe.goal,
        target=subject.recipe.target,
        automatic=subject.recipe.passes == "auto",
        verified=subject.verified,
        doubt=subject.doubt,
        methods=tuple(step.pass_.method for step in made),
        sizes=sizes,
        latency=timed[-1],
        fidelity=fidelity,
        accuracy=accuracy,
        reason=reason,
        portability=portability,
    )
    subject.progress("report", 0.95, "writing the report")
    report = Report(
        model=subject.model,
        verdict=judge(evidence),
        goal=subject.recipe.goal,
        before=sizes[0],
        after=sizes[1],
        latency=timed[-1],
        fidelity=fidelity,
        accuracy=accuracy,
        steps=_steps(made, closeness, timed),
        layers=blame(
            subject.original,
            result,
            subject.split.report,
            feed=subject.feeds[0],
            notes=_notes(made),
        ),
        candidates=list(candidates),
        warnings=_heard(subject, made, warnings),
        environment=machine(),
        reproduce=_reproduce(subject, made, out / "model.onnx"),
        preflight=subject.expected,
        snippet=snippet(
            subject.recipe.target,
            subject.feeds[0],
            images=subject.recipe.images,
            states=fed_back(subject.inputs),
        ),
        portability=portability,
        extra={key: value for step in made for key, value in step.extra.items()},
    )
    write(report, out)
    return report


def write(report: Report, out: Path) -> None:
    (out / "report.json").write_text(report.model_dump_json(by_alias=True, indent=1))
    (out / "report.html").write_text(render(report))


def _closeness(
    subject: Subject, paths: Sequence[Path]
) -> list[tuple[Fidelity, Accuracy | None]]:
    """Fidelity and accuracy of the original against itself, then of each path."""
    reference = subject.reference(subject.split.report, "report")
    found = [reference.compare(subject.original)] if not paths else []
    for number, path in enumerate(paths):
        subject.progress(
            "measure",
            0.55 + 0.1 * (number + 1) / len(paths),
            f"compared result {number + 1} of {len(paths)} with the original",
        )
        found.append(reference.compare(path))
    return found


def _latencies(subject: Subject, paths: Sequence[Path]) -> list[list[Latency]]:
    """Each path against the original; only the last, the result, is timed in every setting."""
    settings = _settings(subject)
    races = len(settings) + (len(paths) > 1)
    results: list[Latency] = []
    for number, setting in enumerate(settings):
        subject.progress(
            "measure", 0.66 + 0.2 * number / races, f"timing against the original, {setting}"
        )
        results += _timed(subject, paths[-1:] or [subject.original], setting, races - number)
    if len(paths) < 2:
        return [results]
    # Apart from the result: they would push it out of the caches that it has when it is used.
    subject.progress("measure", 0.66 + 0.2 * (races - 1) / races, "timing the single steps")
    return [*([one] for one in _timed(subject, paths[:-1], settings[0], 1)), results]


def _timed(
    subject: Subject, paths: Sequence[Path], setting: Setting, races_left: int
) -> list[Latency]:
    return race(
        [subject.original, *paths],
        subject.feeds[setting.feed],
        threads=setting.threads,
        quiet=subject.quiet,
        max_seconds=subject.timing_seconds(races_left),
    )


def _settings(subject: Subject) -> list[Setting]:
    """What is timed; the verdict rests on the first."""
    cores = environment()[2]
    asked = subject.recipe.target.threads
    found = [Setting(0, threads) for threads in dict.fromkeys([asked, 1, cores])]
    return found + [Setting(number, asked) for number in range(1, len(subject.feeds))]


def _sizes(subject: Subject, result: Path) -> tuple[Size, Size]:
    subject.progress("measure", 0.88, "measuring size and peak memory")
    uploaded = _size(subject, subject.original)
    before = uploaded.model_copy(
        update={
            "bytes": subject.model.bytes,
            "compressed_bytes": compressed_bytes(subject.upload),
        }
    )
    if result == subject.original:
        return before, uploaded if subject.upload != subject.original else before
    return before, _size(subject, result)


def _size(subject: Subject, path: Path) -> Size:
    model = graph.load(path)
    every, nonzero = graph.parameters(model)
    return Size(
        bytes=graph.file_bytes(path),
        compressed_bytes=compressed_bytes(path),
        parameters=every,
        nonzero_parameters=nonzero,
        macs=sum(graph.macs(path, subject.feeds[0]).values()),
        peak_memory_bytes=subject.measure(path),
        ops=graph.op_counts(model),
    )


def _steps(
    made: Sequence[Made],
    closeness: Sequence[tuple[Fidelity, Accuracy | None]],
    timed: Sequence[Sequence[Latency]],
) -> list[Step]:
    return [
        Step(
            pass_=step.pass_.method,
            seconds=round(step.seconds, 3),
            bytes=graph.file_bytes(step.path),
            fidelity=closeness[number][0],
            latency=timed[number][0],
            warnings=step.warnings,
        )
        for number, step in enumerate(made)
    ]


def _heard(subject: Subject, made: Sequence[Made], warnings: Sequence[Warned]) -> list[Warned]:
    """What the user should know, each once: of the data, of the search, of the passes."""
    every = [*subject.heard(), *warnings, *(one for step in made for one in step.warnings)]
    return list({one.message: one for one in every}.values())


def _notes(made: Sequence[Made]) -> dict[str, str]:
    return {node: reason for step in made for node, reason in step.notes.items()}


def _reproduce(subject: Subject, made: Sequence[Made], result: Path) -> Reproduce:
    recipe = subject.recipe
    passes = [step.pass_.settled(step.extra) for step in made]
    as_written = recipe.passes != "auto" and all(
        len(one.variants()) == 1 for one in recipe.passes
    )
    if made and not (as_written and passes == [step.pass_ for step in made]):
        recipe = recipe.model_copy(update={"passes": passes})
    return Reproduce(
        recipe=recipe, seed=recipe.seed, sha256={**subject.sha256, "result": digest(result)}
    )
