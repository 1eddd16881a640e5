"""Candidates as the report lists them, and the files of the front."""

from collections.abc import Sequence
from pathlib import Path

from worker.compression.fidelity import drop, worst_sqnr
from worker.compression.passes import ChannelPruning, Pass
from worker.compression.report import Candidate, Report, Warned
from worker.compression.search.bench import by_bytes
from worker.compression.search.trial import (
    SPENT,
    UNMEASURED,
    Trial,
    dominated,
    inside,
    loss,
    shortfall,
)
from worker.compression.subject import Subject, copy_model
from worker.compression.verdict import BUSY

FRONT = 8
"""Most files of the front that are handed out."""
_NAMED = 4


def front(trials: Sequence[Trial], best: Trial | None, subject: Subject) -> list[Trial]:
    """The trials that no other beats in everything, the chosen one among them.

    Of more than there is room for, those with the most of the bound left go first.
    """
    goal = subject.recipe.goal
    found = [
        one
        for one in trials
        if one.measured
        and one.made
        and one.path.exists()
        and (one is best or not dominated(one, trials, goal))
    ]
    order = sorted(found, key=lambda one: (one is not best, one.bound_used(goal)))
    kept = order[:FRONT]
    return [one for one in found if one in kept]


def listed(
    subject: Subject, trials: Sequence[Trial], best: Trial | None, out: Path
) -> list[Candidate]:
    """Every trial for the report; the files of the front are written to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    files: dict[int, str] = {}
    for number, one in enumerate(front(trials, best, subject)):
        files[id(one)] = f"front-{number}.onnx"
        copy_model(one.path, out / files[id(one)])
    return [candidate(subject, one, best, files.get(id(one))) for one in trials]


def candidate(subject: Subject, one: Trial, best: Trial | None, file: str | None) -> Candidate:
    """A trial as the report lists it; `file` is its name in the output folder."""
    return Candidate(
        name=one.name,
        recipe=subject.recipe.model_copy(update={"passes": _settled(one)}),
        bytes=one.bytes,
        latency_ms=one.latency.after.p50 if one.latency else None,
        speedup=one.latency.speedup if one.latency else None,
        drop=drop(one.fidelity, one.accuracy) if one.fidelity else None,
        sqnr_db=worst_sqnr(one.fidelity) if one.fidelity else None,
        within_bound=inside(one, subject.recipe.goal),
        on_front=file is not None,
        chosen=one is best,
        reason=_because(subject, one, best),
        file=file,
    )


def _settled(one: Trial) -> list[Pass]:
    """The recipe that does the same again, with what a clock decided written out."""
    return [step.pass_.settled(step.extra) for step in one.made] or list(one.passes)


def _because(subject: Subject, one: Trial, best: Trial | None) -> str:
    if one is not best:
        return shortfall(subject, one) or "inside the bound, but another candidate is better"
    wanted = "smallest" if by_bytes(subject) else "fastest"
    size = f"{(one.bytes or 0) / subject.model.bytes:.2f}x of the bytes"
    gained = f"{one.speedup:.2f}x as fast, {size}, {loss(one)}"
    return f"the best of the {wanted} inside the bound: {gained}"


def disproof(report: Report) -> str:
    """What the last measurement of a candidate says against it."""
    if report.latency[0].verdict == "unreliable" and report.verdict.sentence.count(BUSY):
        return f"{UNMEASURED} in the end (about {report.latency[0].speedup:.2f}x)"
    return f"on the samples that report: {report.verdict.sentence}"


def warnings(trials: Sequence[Trial]) -> list[Warned]:
    """What the passes warned of, once each: with the original no step reports it."""
    said = [warned for one in trials for step in one.made for warned in step.warnings]
    return list({warned.message: warned for warned in said}.values())


def unpruned(subject: Subject, trials: Sequence[Trial], best: Trial | None) -> list[Warned]:
    """Why the result has all its channels, in one sentence; nothing where it lost some."""
    tried = [one for one in trials if _prunes(one)]
    if not tried or (best is not None and _prunes(best)):
        return []
    said = {warned.code: warned.message for step in tried[0].made for warned in step.warnings}
    reason = said.get("nothing_prunable") or shortfall(subject, tried[0])
    told = reason or "inside the bound, but another candidate is better"
    return [Warned(code="not_pruned", message=f"no channels were pruned: {told}")]


def _prunes(one: Trial) -> bool:
    return any(isinstance(pass_, ChannelPruning) for pass_ in one.passes)


def why_not(subject: Subject, trials: Sequence[Trial]) -> str:
    """What goes with the original: the nearest candidates, and what blocked them."""
    goal = subject.recipe.goal
    wanted = "smaller" if by_bytes(subject) else "faster"
    limits = goal.max_bytes is not None or goal.max_latency_ms is not None
    bound = "within the bound and the limits" if limits else "within the bound"
    unmeasured = [one for one in trials if UNMEASURED in shortfall(subject, one)]
    nearest = sorted(
        trials, key=lambda one: (one not in unmeasured, one.limits_used(goal), -one.speedup)
    )
    named = [f"{one.name}: {shortfall(subject, one).rstrip('.')}" for one in nearest[:_NAMED]]
    if len(trials) > _NAMED:
        named.append(f"{len(trials) - _NAMED} more")
    tries = "; ".join(named)
    if unmeasured:
        # What would have been measured nobody knows: that is no finding about the model.
        return (
            f"{BUSY}, so that nothing can be called {wanted}; run it again while the machine "
            f"does nothing else ({tries})"
        )
    if not any(one.measured or one.reason not in ("", SPENT) for one in trials):
        return f"{SPENT} before anything could be measured; give goal.time_budget_s more"
    return f"nothing that was tried is {wanted} {bound}, the nearest first ({tries})"
