"""The automatic mode: the best recipe that stays inside the bound, else the original."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from worker.compression import graph
from worker.compression.assessment import Made, assess
from worker.compression.benchmark import Latency, race, runs_here
from worker.compression.errors import CompressionError
from worker.compression.fidelity import Accuracy, Fidelity, Reference, drop, keeps, worst_sqnr
from worker.compression.passes import AnyPass, GraphCleaning, StaticQuantization
from worker.compression.pipeline import run_passes
from worker.compression.report import Candidate, Report, Warned
from worker.compression.subject import Subject, copy_model
from worker.compression.verdict import FASTER, SMALLER, over_limits

RESERVED = 0.2
"""Share of the time budget kept for the last measurement and the report."""
FRONT = 8
"""Most files of the front that are handed out."""


@dataclass(frozen=True)
class Tried:
    """A candidate as far as it came: built, compared, timed; or refused for a reason."""

    name: str
    passes: list[AnyPass]
    made: list[Made]
    reason: str = ""
    fidelity: Fidelity | None = None
    accuracy: Accuracy | None = None
    latency: Latency | None = None

    @property
    def path(self) -> Path:
        return self.made[-1].path

    @property
    def bytes(self) -> int:
        return graph.file_bytes(self.path)


def proposals() -> list[tuple[str, list[AnyPass]]]:
    """What is tried, cheapest first, so that little time still yields something."""
    return [
        ("cleaned graph", [GraphCleaning()]),
        ("int8", [GraphCleaning(), StaticQuantization()]),
        (
            "int8, Conv, MatMul and Gemm only",
            [GraphCleaning(), StaticQuantization(ops=["Conv", "MatMul", "Gemm"])],
        ),
    ]


def search(subject: Subject, out: Path) -> Report:
    """Fastest (or smallest) candidate inside the bound; or the original, with the reason.

    A candidate is tried only where the time budget lets it end; a fifth is kept for the report.
    """
    deadline = subject.deadline - subject.recipe.goal.time_budget_s * RESERVED
    tried = _time(subject, _compare(subject, _build(subject, deadline)))
    for best in _ranked(subject, tried):
        report = assess(
            subject, best.made, out=out, candidates=_front(subject, tried, best, out)
        )
        if report.verdict.outcome != "not_better":
            return report
        # The samples and the timing that the search did not see disagree: that settles it.
        disproved = replace(best, latency=None, reason=report.verdict.sentence)
        tried = [disproved if one is best else one for one in tried]
    return assess(
        subject,
        [],
        out=out,
        candidates=_front(subject, tried, None, out),
        warnings=_warnings(tried),
        reason=_why_not(subject, tried),
    )


def _build(subject: Subject, deadline: float) -> list[Tried]:
    """Make each proposal; passes that proposals share from the start are run once."""
    done: dict[str, list[Made]] = {}
    tried, longest = [], 0.0
    for number, (name, passes) in enumerate(proposals()):
        subject.progress("search", 0.05 + 0.1 * number, f"trying {name}")
        begun = time.monotonic()
        if begun + longest > deadline:
            tried.append(Tried(name, passes, [], "the time budget was spent"))
            continue
        tried.append(_made(subject, name, passes, done, 0.05 + 0.1 * number))
        longest = max(longest, time.monotonic() - begun)
    return tried


def _made(
    subject: Subject,
    name: str,
    passes: list[AnyPass],
    done: dict[str, list[Made]],
    share: float,
) -> Tried:
    made: list[Made] = []
    try:
        for number in range(len(passes)):
            key = repr(passes[: number + 1])
            if key not in done:
                done[key] = run_passes(
                    subject, [passes[number]], done=made, first=share, last=share + 0.1
                )
            made = done[key]
    except CompressionError as error:
        return Tried(name, passes, [], error.message)
    return Tried(name, passes, made)


def _compare(subject: Subject, tried: Sequence[Tried]) -> list[Tried]:
    reference = subject.reference(subject.split.select, "select")
    return [_compared(subject, one, reference) if one.made else one for one in tried]


def _compared(subject: Subject, one: Tried, reference: Reference) -> Tried:
    subject.progress("search", 0.4, f"comparing {one.name} with the original")
    fidelity, accuracy = reference.compare(one.path)
    return replace(one, fidelity=fidelity, accuracy=accuracy)


def _time(subject: Subject, tried: Sequence[Tried]) -> list[Tried]:
    """One interleaved race of all candidates: the same conditions for each."""
    racers = [one for one in tried if one.made]
    if not racers:
        return list(tried)
    subject.progress("search", 0.45, "timing the candidates against the original")
    timed = race(
        [subject.original, *(one.path for one in racers)],
        subject.feeds[0],
        threads=subject.recipe.target.threads,
        quiet=subject.quiet,
        max_seconds=subject.timing_seconds(3),
    )
    found = {one.name: latency for one, latency in zip(racers, timed, strict=True)}
    return [replace(one, latency=found.get(one.name)) for one in tried]


def _ranked(subject: Subject, tried: Sequence[Tried]) -> list[Tried]:
    """Candidates worth a last look, best first."""
    good = [one for one in tried if not _shortfall(subject, one)]
    if subject.recipe.goal.objective == "size" or not runs_here(subject.recipe.target.cpu):
        return sorted(good, key=lambda one: one.bytes)
    return sorted(good, key=lambda one: -_timed(one).speedup)


def _timed(one: Tried) -> Latency:
    if one.latency is None:
        raise ValueError(f"{one.name} was not timed")
    return one.latency


def _shortfall(subject: Subject, one: Tried) -> str:
    """What keeps a candidate from being better than the original, in words; or nothing."""
    goal = subject.recipe.goal
    if not one.made or one.latency is None or one.fidelity is None:
        return one.reason or "it was not measured"
    if not keeps(
        one.fidelity, one.accuracy, max_drop=goal.max_drop, min_sqnr_db=goal.min_sqnr_db
    ):
        return f"outside the bound: {_loss(one)}"
    over = over_limits(goal, one.bytes, one.latency.after.p50)
    if over:
        return "; ".join(over)
    if not runs_here(subject.recipe.target.cpu):
        return ""
    if one.latency.verdict in ("slower", "unreliable"):
        return f"its latency is {one.latency.verdict} ({one.latency.speedup:.2f}x)"
    if goal.objective == "size":
        ratio = one.bytes / subject.model.bytes
        return "" if ratio <= SMALLER else f"not smaller ({ratio:.2f}x of the bytes)"
    if one.latency.verdict != "faster" or one.latency.interval[0] < FASTER:
        return f"not measurably faster ({one.latency.speedup:.2f}x)"
    return ""


def _loss(one: Tried) -> str:
    if one.fidelity is None:
        return "not compared"
    lost, sqnr = drop(one.fidelity, one.accuracy), worst_sqnr(one.fidelity)
    words = [] if lost is None else [f"drop {100 * lost:.2g} %"]
    words += [] if sqnr is None else [f"worst channel at {sqnr:.1f} dB"]
    return ", ".join(words) or "identical"


def _front(
    subject: Subject, tried: Sequence[Tried], best: Tried | None, out: Path
) -> list[Candidate]:
    """Every candidate as the report lists it; the files of the front are written to `out`."""
    front = [one for one in tried if one.latency and not _dominated(one, tried)][:FRONT]
    out.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(front):
        copy_model(one.path, out / f"front-{number}.onnx")
    files = {one.name: f"front-{number}.onnx" for number, one in enumerate(front)}
    return [_candidate(subject, one, best, files.get(one.name)) for one in tried]


def _dominated(one: Tried, tried: Sequence[Tried]) -> bool:
    mine = _costs(one)
    others = (_costs(other) for other in tried if other.latency and other is not one)
    return any(
        all(a <= b for a, b in zip(costs, mine, strict=True)) and costs != mine
        for costs in others
    )


def _costs(one: Tried) -> tuple[float, float, float]:
    """(milliseconds, loss, bytes): less is better in each."""
    if one.fidelity is None:
        raise ValueError(f"{one.name} was not compared")
    lost, sqnr = drop(one.fidelity, one.accuracy), worst_sqnr(one.fidelity)
    loss = lost if lost is not None else (0.0 if sqnr is None else 10 ** (-sqnr / 20))
    return _timed(one).after.p50, loss, one.bytes


def _candidate(subject: Subject, one: Tried, best: Tried | None, file: str | None) -> Candidate:
    short = _shortfall(subject, one)
    return Candidate(
        name=one.name,
        recipe=subject.recipe.model_copy(update={"passes": one.passes}),
        bytes=one.bytes if one.made else None,
        latency_ms=one.latency.after.p50 if one.latency else None,
        speedup=one.latency.speedup if one.latency else None,
        drop=drop(one.fidelity, one.accuracy) if one.fidelity else None,
        sqnr_db=worst_sqnr(one.fidelity) if one.fidelity else None,
        within_bound=one.fidelity is not None and not short.startswith("outside"),
        on_front=file is not None,
        chosen=one is best,
        reason=_because(subject, one, best, short),
        file=file,
    )


def _because(subject: Subject, one: Tried, best: Tried | None, short: str) -> str:
    if one is not best:
        return short or "inside the bound, but another candidate is better"
    wanted = "fastest" if subject.recipe.goal.objective == "latency" else "smallest"
    return f"the {wanted} candidate inside the bound"


def _warnings(tried: Sequence[Tried]) -> list[Warned]:
    """What the passes warned of, once each: with the original no step reports it."""
    said = [warned for one in tried for step in one.made for warned in step.warnings]
    return list({warned.message: warned for warned in said}.values())


def _why_not(subject: Subject, tried: Sequence[Tried]) -> str:
    wanted = "faster" if subject.recipe.goal.objective == "latency" else "smaller"
    tries = "; ".join(f"{one.name}: {_shortfall(subject, one).rstrip('.')}" for one in tried)
    return f"nothing that was tried is {wanted} within the bound ({tries})"
