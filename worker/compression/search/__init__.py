"""The automatic mode: the best recipe that stays inside the bound, else the original."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from worker.compression.assessment import assess
from worker.compression.benchmark import race
from worker.compression.report import Report
from worker.compression.search.bench import Bench, ranked
from worker.compression.search.curve import curve
from worker.compression.search.finalists import FINALISTS, finalists
from worker.compression.search.front import disproof, listed, unpruned, warnings, why_not
from worker.compression.search.stages import explore
from worker.compression.search.trial import Trial
from worker.compression.subject import Subject
from worker.compression.timetable import closing_seconds, seconds_left, timing_seconds

__all__ = ["curve", "search"]

RESERVED = 0.2
"""Share of the time budget kept for the last measurement and the report."""
# Less time than this is better spent on the one that looked best.
_GLIMPSE = 1.0


def search(subject: Subject, out: Path) -> Report:
    """Fastest (or smallest) candidate inside the bound; or the original, with the reason.

    A candidate is tried only where the time budget lets it end; a fifth is kept for the report.
    """
    reserved = max(RESERVED * subject.recipe.goal.time_budget_s, closing_seconds(subject))
    bench = Bench(subject, subject.deadline - reserved)
    explore(bench)
    trials = _raced(subject, bench.trials)
    bench.memory.keep(trials)
    for best in finalists(subject, trials):
        report = assess(
            subject,
            best.made,
            out=out,
            candidates=listed(subject, trials, best, out),
            warnings=unpruned(subject, trials, best),
        )
        if report.verdict.outcome != "not_better":
            return report
        # The samples and the timing that the search did not see disagree: that settles it.
        disproved = replace(best, latency=None, reason=disproof(report))
        trials = [disproved if one is best else one for one in trials]
        if seconds_left(subject) < 2 * closing_seconds(subject):
            # Another that fails as well would leave no time to report the original.
            break
    return assess(
        subject,
        [],
        out=out,
        candidates=listed(subject, trials, None, out),
        warnings=[*warnings(trials), *unpruned(subject, trials, None)],
        reason=why_not(subject, trials),
    )


def _raced(subject: Subject, trials: Sequence[Trial]) -> list[Trial]:
    """The best few timed once more, together: glances at each alone do not compare."""
    best_few = ranked(subject, trials)[:FINALISTS]
    seconds = timing_seconds(subject, 3)
    if len(best_few) < 2 or all(one.recalled for one in best_few) or seconds < _GLIMPSE:
        return list(trials)
    subject.progress("search", 0.5, f"timing the best {len(best_few)} against each other")
    timed = race(
        [subject.original, *(one.path for one in best_few)],
        subject.feeds[0],
        threads=subject.recipe.target.threads,
        quiet=subject.quiet,
        max_seconds=seconds,
    )
    found = {id(one): latency for one, latency in zip(best_few, timed, strict=True)}
    return [
        replace(one, latency=found[id(one)], raced=True) if id(one) in found else one
        for one in trials
    ]
