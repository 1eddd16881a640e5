"""Several amounts of one method, each as a file: what compression costs, drawn as a curve."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import cast

from worker.compression import graph
from worker.compression.assessment import Made, assess
from worker.compression.benchmark import race
from worker.compression.passes import AnyPass
from worker.compression.pipeline import run_passes
from worker.compression.report import Report, Warned
from worker.compression.search.front import FRONT, candidate, warnings
from worker.compression.search.trial import Trial, inside, loss
from worker.compression.subject import Subject, copy_model
from worker.compression.timetable import timing_seconds

# Share of the job's progress that making the points fills.
_FROM, _TO = 0.05, 0.45


def curve(subject: Subject, passes: Sequence[AnyPass], out: Path) -> Report:
    """Make every point and hand each out; the result is the fastest inside the bound.

    Where none is inside, it is the one that loses least.
    """
    points = _measured(subject, _made(subject, list(_variants(passes))))
    best = _best(subject, points)
    listed = []
    for number, one in enumerate(points):
        file = f"front-{number}.onnx"
        copy_model(one.path, out / file)
        reason = _because(subject, one, best)
        listed.append(candidate(subject, one, best, file).model_copy(update={"reason": reason}))
    return assess(subject, best.made, out=out, candidates=listed, warnings=_heard(points, best))


def _variants(passes: Sequence[AnyPass]) -> Iterator[list[AnyPass]]:
    """The recipe once for each amount, at most as many as there are files for."""
    settings: list[Sequence[AnyPass]] = [
        cast("Sequence[AnyPass]", one.variants()) for one in passes
    ]
    for chosen in islice(product(*settings), FRONT):
        yield list(chosen)


def _made(subject: Subject, recipes: Sequence[list[AnyPass]]) -> list[Trial]:
    """Run each recipe; passes that they share from the start are run once."""
    done: dict[str, list[Made]] = {}
    points = []
    width = (_TO - _FROM) / len(recipes)
    for number, passes in enumerate(recipes):
        first = _FROM + number * width
        made: list[Made] = []
        for place, pass_ in enumerate(passes):
            key = repr(passes[: place + 1])
            if key not in done:
                done[key] = run_passes(
                    subject, [pass_], first=first, last=first + width, done=made
                )
            made = done[key]
        points.append(
            Trial(_named(passes), passes, made, bytes=graph.file_bytes(made[-1].path))
        )
    return points


def _named(passes: Sequence[AnyPass]) -> str:
    """What sets a point apart from the others."""
    amounts = [getattr(one, "amount", None) for one in passes]
    return ", ".join(f"amount {amount:g}" for amount in amounts if amount is not None)


def _measured(subject: Subject, points: Sequence[Trial]) -> list[Trial]:
    """All points timed in one race, and compared on the selecting samples."""
    subject.progress("compress", _TO, f"timing {len(points)} points against each other")
    timed = race(
        [subject.original, *(one.path for one in points)],
        subject.feeds[0],
        threads=subject.recipe.target.threads,
        quiet=subject.quiet,
        max_seconds=timing_seconds(subject, 3),
    )
    reference = subject.reference(subject.split.select, "select")
    found = []
    for one, latency in zip(points, timed, strict=True):
        fidelity, accuracy = reference.compare(one.path)
        found.append(replace(one, latency=latency, fidelity=fidelity, accuracy=accuracy))
    return found


def _best(subject: Subject, points: Sequence[Trial]) -> Trial:
    goal = subject.recipe.goal
    kept = [one for one in points if inside(one, goal)]
    if kept:
        return max(kept, key=lambda one: one.speedup)
    return min(points, key=lambda one: one.bound_used(goal))


def _because(subject: Subject, one: Trial, best: Trial) -> str:
    if not inside(one, subject.recipe.goal):
        return f"outside the bound: {loss(one)}"
    return "the fastest point inside the bound" if one is best else "inside the bound"


def _heard(points: Sequence[Trial], best: Trial) -> list[Warned]:
    """What passes warned of at the other points, with the point named."""
    return [
        Warned(code=said.code, message=f"{one.name}: {said.message}")
        for one in points
        if one is not best
        for said in warnings([one])
    ]
