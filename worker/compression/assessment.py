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
from worker.compression.fidelity import Accuracy, Decoded, Fidelity, Reference, Scored
from worker.compression.html import render
from worker.compression.layers import blame
from worker.compression.passes import Pass
from worker.compression.portable import portable
from worker.compression.provenance import machine
from worker.compression.report import (
    Candidate,
    Portability,
    Report,
    Reproduce,
    Size,
    Step,
    Warned,
)
from worker.compression.snippet import fed_back, snippet
from worker.compression.subject import Subject, copy_model, digest
from worker.compression.timetable import (
    inference_seconds,
    leave_out,
    race_seconds,
    there_is_time,
    timing_seconds,
)
from worker.compression.verdict import Evidence, judge

Closeness = tuple[Fidelity | None, Accuracy | None]


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
    _hand_out(made, result, out)
    subject.progress("measure", 0.55, "comparing with the original on held-out samples")
    paths = [step.path for step in made]
    reference = subject.reference(subject.split.report, "report")
    fidelity, accuracy = reference.compare(result)
    closeness = [*_step_closeness(subject, paths[:-1], reference), (fidelity, accuracy)]
    timed = _latencies(subject, paths)
    portability = _portability(subject, result) if made else None
    evidence = Evidence(
        goal=subject.recipe.goal,
        target=subject.recipe.target,
        automatic=subject.recipe.passes == "auto",
        verified=subject.verified,
        doubt=subject.doubt,
        methods=tuple(step.pass_.method for step in made),
        sizes=_sizes(subject, result),
        latency=timed[-1],
        fidelity=fidelity,
        accuracy=accuracy,
        reason=reason,
        portability=portability,
    )
    subject.progress("report", 0.95, "writing the report")
    report = _report(
        subject,
        made,
        evidence=evidence,
        steps=_steps(made, closeness, timed),
        candidates=candidates,
        warnings=warnings,
        written=out / "model.onnx",
    )
    write(report, out)
    return report


def _portability(subject: Subject, result: Path) -> Portability | None:
    """Whether other CPUs give the same, as far as the time budget has room to find out."""
    if not there_is_time(subject, 32 * inference_seconds(subject)):
        leave_out("whether other CPUs give the same")
        return None
    return portable(result, subject.split.calibrate)


def _hand_out(made: Sequence[Made], result: Path, out: Path) -> None:
    """Copy the result to `out`, and what passes left to go with it."""
    out.mkdir(parents=True, exist_ok=True)
    copy_model(result, out / "model.onnx")
    for file in (file for step in made for file in step.files):
        shutil.copyfile(file, out / file.name)


def _report(
    subject: Subject,
    made: Sequence[Made],
    *,
    evidence: Evidence,
    steps: list[Step],
    candidates: Sequence[Candidate],
    warnings: Sequence[Warned],
    written: Path,
) -> Report:
    """All that is to be said; `written` is the result as it was handed out."""
    recipe, feed = subject.recipe, subject.feeds[0]
    layers = blame(
        subject.original,
        made[-1].path if made else subject.original,
        subject.split.report,
        feed=feed,
        notes=_notes(made),
    )
    return Report(
        model=subject.model,
        verdict=judge(evidence),
        goal=recipe.goal,
        before=evidence.sizes[0],
        after=evidence.sizes[1],
        latency=evidence.latency,
        fidelity=evidence.fidelity,
        accuracy=evidence.accuracy,
        steps=steps,
        layers=layers,
        candidates=list(candidates),
        warnings=_heard(subject, made, warnings),
        environment=machine(),
        reproduce=_reproduce(subject, made, written),
        preflight=subject.expected,
        portability=evidence.portability,
        snippet=snippet(
            recipe.target, feed, images=recipe.images, states=fed_back(subject.inputs)
        ),
        extra={key: value for step in made for key, value in step.extra.items()},
    )


def write(report: Report, out: Path) -> None:
    (out / "report.json").write_text(report.model_dump_json(by_alias=True, indent=1))
    (out / "report.html").write_text(render(report))


def _step_closeness(
    subject: Subject, paths: Sequence[Path], reference: Reference | Scored | Decoded
) -> list[Closeness]:
    """Of the steps before the result, as far as the time budget has room for them."""
    each = 2 * len(subject.split.report) * inference_seconds(subject)
    found: list[Closeness] = []
    for number, path in enumerate(paths):
        if not there_is_time(subject, each + race_seconds(subject)):
            leave_out("how close each step stays")
            found.append((None, None))
            continue
        subject.progress(
            "measure",
            0.55 + 0.1 * (number + 1) / (len(paths) + 1),
            f"compared step {number + 1} with the original",
        )
        found.append(reference.compare(path))
    return found


def _latencies(subject: Subject, paths: Sequence[Path]) -> list[list[Latency]]:
    """Each path against the original; only the last, the result, is timed in every setting.

    Where the time budget has no room, only what the verdict rests on is timed.
    """
    settings = _settings(subject)
    races = len(settings) + (len(paths) > 1)
    results: list[Latency] = []
    for number, setting in enumerate(settings):
        if results and not there_is_time(subject, race_seconds(subject)):
            leave_out(f"latency with {setting}")
            continue
        subject.progress(
            "measure", 0.66 + 0.2 * number / races, f"timing against the original, {setting}"
        )
        results += _timed(subject, paths[-1:] or [subject.original], setting, races - number)
    return [*_step_latencies(subject, paths[:-1], settings[0]), results]


def _step_latencies(
    subject: Subject, paths: Sequence[Path], setting: Setting
) -> list[list[Latency]]:
    """The steps apart from the result: they would push it out of the caches that it has."""
    if not paths:
        return []
    if not there_is_time(subject, race_seconds(subject) * (2 + len(paths)) / 3):
        leave_out("how fast each step is")
        return [[] for _ in paths]
    subject.progress("measure", 0.84, "timing the single steps")
    return [[one] for one in _timed(subject, paths, setting, 1)]


def _timed(
    subject: Subject, paths: Sequence[Path], setting: Setting, races_left: int
) -> list[Latency]:
    return race(
        [subject.original, *paths],
        subject.feeds[setting.feed],
        threads=setting.threads,
        quiet=subject.quiet,
        max_seconds=timing_seconds(subject, races_left),
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
    closeness: Sequence[Closeness],
    timed: Sequence[Sequence[Latency]],
) -> list[Step]:
    return [
        Step(
            pass_=step.pass_.method,
            seconds=round(step.seconds, 3),
            bytes=graph.file_bytes(step.path),
            fidelity=closeness[number][0],
            latency=next(iter(timed[number]), None),
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
