"""How many units each group loses for a measured speed-up: the clock plans and corrects."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.compression import graph
from worker.compression.channels.allocation import NEAR, Allocation, Steps
from worker.compression.channels.criteria import Ranking
from worker.compression.channels.latency import LatencyTable, measured_speedup, time_layers
from worker.compression.channels.plans import Plan, ladder
from worker.compression.channels.rewrite import prune
from worker.compression.channels.study import Study

# Widths of one group that are timed at most; what lies between is drawn between.
_MOST_TIMED = 8
# Plans that are measured, and the most time that any takes out.
_CORRECTIONS = 8
_MOST_SHARE = 0.95
# What a plan for time may overshoot: layers come in coarse steps.
_OVER_TIME = (0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Tried:
    """Units lost by each group, and how many times as fast as the upload that was measured."""

    lost: tuple[int, ...]
    reached: float


def by_speedup(
    study: Study,
    rankings: Sequence[Ranking],
    speedup: float,
    *,
    upload: Path,
    block: int,
    threads: int,
    progress: Callable[[float, str], None],
) -> Plan:
    """Plan by a table of timed layers, then correct by what the whole model measures.

    Both are against the `upload`: what cleaning it gained counts as well.
    """
    path = study.folder / "timed.onnx"

    def measured(lost: Sequence[int]) -> Tried:
        _write(study, rankings, lost, path)
        _, reached = measured_speedup(upload, path, study.samples[0], threads=threads)
        return Tried(tuple(lost), reached)

    whole = measured([0] * len(rankings))
    if whole.reached >= speedup:
        return Plan(whole.lost, whole.reached, timed=True)
    allocation = _allocation(study, rankings, block, threads, progress)
    found = searched(lambda share: measured(allocation.reach(share)), speedup, whole)
    return Plan(found.lost, found.reached, timed=True)


def _allocation(
    study: Study,
    rankings: Sequence[Ranking],
    block: int,
    threads: int,
    progress: Callable[[float, str], None],
) -> Allocation:
    """Milliseconds as a cost, in blocks that kernels take whole, then in half ones."""
    prepared = study.folder / "prepared.onnx"
    whole, _ = measured_speedup(prepared, prepared, study.samples[0], threads=threads)
    coarse, fine = ladder(study.survey, [block, max(1, block // 2)])
    timed = [_thinned(one) for one in coarse]
    table = time_layers(
        study.survey,
        timed,
        rest=whole,
        folder=study.folder,
        threads=threads,
        progress=progress,
    )
    steps = [_not_slower(all_, timed, table) for all_ in (coarse, fine)]
    return Allocation(rankings, steps, table.costs, _OVER_TIME)


def _not_slower(
    widths: Sequence[Steps], timed: Sequence[Steps], table: LatencyTable
) -> list[Steps]:
    """Widths without those that were timed as slower than the full one."""
    made = []
    for one, asked, quick in zip(widths, timed, table.steps, strict=True):
        slow = set(asked.lost) - set(quick.lost)
        made.append(Steps(tuple(lost for lost in one.lost if lost not in slow)))
    return made


def searched(tried: Callable[[float], Tried], speedup: float, whole: Tried) -> Tried:
    """Correct the share of time to take out by what it did, until the speed-up is near."""
    share = 1 - whole.reached / speedup
    low, high, best = 0.0, _MOST_SHARE, whole
    for _ in range(_CORRECTIONS):
        one = tried(share)
        if abs(math.log(one.reached / speedup)) < abs(math.log(best.reached / speedup)):
            best = one
        if abs(one.reached / speedup - 1) <= NEAR:
            break
        low, high = (share, high) if one.reached < speedup else (low, share)
        corrected = share + whole.reached * (1 / one.reached - 1 / speedup)
        share = corrected if low < corrected < high else (low + high) / 2
    return best


def _thinned(one: Steps) -> Steps:
    """At most so many widths, evenly spread, the full one and the narrowest among them."""
    if len(one.lost) <= _MOST_TIMED:
        return one
    last = len(one.lost) - 1
    picked = {round(place * last / (_MOST_TIMED - 1)) for place in range(_MOST_TIMED)}
    return Steps(tuple(one.lost[place] for place in sorted(picked)))


def _write(study: Study, rankings: Sequence[Ranking], lost: Sequence[int], path: Path) -> None:
    structure = study.survey.structure
    cut = structure.cut(
        unit for one, count in zip(rankings, lost, strict=True) for unit in one.order[:count]
    )
    graph.save(prune(study.survey.model, structure, cut), path)
