"""How many units each group is to lose: by amount, by measured speed, or as it was told."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.compression import graph
from worker.compression.channels.allocation import NEAR, Allocation, Steps, steps
from worker.compression.channels.costs import Costs, Of
from worker.compression.channels.criteria import Ranking
from worker.compression.channels.latency import measured_speedup, slower, time_layers
from worker.compression.channels.rewrite import prune
from worker.compression.channels.study import Study
from worker.compression.channels.survey import Survey
from worker.compression.errors import InvalidRecipe

# Widths that kernels take whole: a block of AVX512, of AVX2 and ARM, and the least of any.
_WIDE_BLOCK, _BLOCK, _LEAST_BLOCK = 16, 8, 4
# Coarse steps may lose so many times what single channels would, or this much anyway.
_TIMES_AS_FAR, _HARMLESS = 1.5, 1e-3
# Plans that are made anew because an odd width turned out to be slow.
_REPLANNED = 3
# Widths of one group that are timed at most.
_MOST_TIMED = 8
# Plans that are measured, and the most time that any takes out.
_CORRECTIONS = 5
_MOST_SHARE = 0.95
# What a plan for time may overshoot: layers come in coarse steps.
_OVER_TIME = (0.01, 0.03, 0.1)


@dataclass(frozen=True)
class Plan:
    """Units that each group loses, and what that reaches: a share, or a speed-up.

    `timed`: a stopwatch had a say, so that another run may plan otherwise.
    """

    lost: tuple[int, ...]
    reached: float
    timed: bool = False


def by_amount(
    study: Study,
    rankings: Sequence[Ranking],
    amount: float,
    *,
    of: Of,
    block: int | None,
    threads: int,
) -> Plan:
    """Take `amount` of the cost `of`; `block` is what widths are rounded to, None for any.

    With None widths are what kernels take whole, where that costs little more than finer ones;
    those are only taken where they are timed as not slower than the full width.
    """
    survey = study.survey
    found = survey.costs(of)
    if block is not None:
        allocation = Allocation(rankings, _ladder(survey, [block]), found)
        lost = allocation.reach(amount)
        return Plan(tuple(lost), allocation.saved(lost))
    sizes = _affordable(survey, rankings, amount, found)
    slow: dict[int, int] = {}
    for _ in range(_REPLANNED):
        allocation = Allocation(rankings, _ladder(survey, sizes, slow), found)
        lost = allocation.reach(amount)
        odd = _slower_widths(study, lost, threads)
        if not odd:
            break
        slow |= {index: _LEAST_BLOCK if index not in slow else _BLOCK for index in odd}
    kept, timed = _not_slower(study, lost, threads)
    return Plan(tuple(kept), allocation.saved(kept), timed or bool(slow))


def _affordable(
    survey: Survey, rankings: Sequence[Ranking], amount: float, costs: Costs
) -> list[int]:
    """Step sizes from the coarsest that loses little more than single channels would."""
    sizes = [_WIDE_BLOCK, _BLOCK, _LEAST_BLOCK, 1]
    errors = []
    for start in range(len(sizes)):
        lost = Allocation(rankings, _ladder(survey, sizes[start:]), costs).reach(amount)
        pairs = zip(rankings, lost, strict=True)
        errors.append(sum(float(one.errors[count]) for one, count in pairs))
    most = max(_TIMES_AS_FAR * min(errors), _HARMLESS)
    return sizes[next(start for start, error in enumerate(errors) if error <= most) :]


def kernel_block(flags: Sequence[str]) -> int:
    """Channels that this CPU's convolutions take at once (mlas NchwcBlockSize)."""
    return _WIDE_BLOCK if "avx512f" in flags else _BLOCK


def _ladder(
    survey: Survey, sizes: Sequence[int], slow: Mapping[int, int] | None = None
) -> list[list[Steps]]:
    """Steps of all groups, from coarse to fine; `slow` says which may not go finer."""
    least = slow or {}
    return [
        [
            steps(group, survey.step_width(group), max(size, least.get(index, 1)))
            for index, group in enumerate(survey.groups)
        ]
        for size in sizes
    ]


def _slower_widths(study: Study, lost: Sequence[int], threads: int) -> list[int]:
    """Groups whose odd width is timed as slower than the full one."""
    return [
        index
        for index, count in enumerate(lost)
        if _is_odd(study.survey, index, count)
        and slower(study.survey, index, count, study.folder, threads)
    ]


def _is_odd(survey: Survey, index: int, lost: int) -> bool:
    group = survey.groups[index]
    width = (len(group.units) - lost) * survey.step_width(group)
    return lost > 0 and width % _BLOCK != 0


def _not_slower(study: Study, lost: Sequence[int], threads: int) -> tuple[list[int], bool]:
    """Give units back to groups whose odd width would be slower than the full one."""
    kept, timed = list(lost), False
    for index in range(len(kept)):
        while _is_odd(study.survey, index, kept[index]):
            timed = True
            if not slower(study.survey, index, kept[index], study.folder, threads):
                break
            kept[index] -= 1
    return kept, timed


def by_speedup(
    study: Study,
    rankings: Sequence[Ranking],
    speedup: float,
    *,
    block: int,
    threads: int,
    progress: Callable[[float, str], None],
) -> Plan:
    """Plan by a table of timed layers, then correct by what the whole model measures."""
    survey, feed = study.survey, study.samples[0]
    original, path = study.folder / "prepared.onnx", study.folder / "timed.onnx"
    whole, _ = measured_speedup(original, original, feed, threads=threads)
    table = time_layers(
        survey,
        [_thinned(one) for one in _ladder(survey, [block])[0]],
        rest=whole,
        folder=study.folder,
        threads=threads,
        progress=progress,
    )
    allocation = Allocation(rankings, [table.steps], table.costs, _OVER_TIME)

    def tried(share: float) -> _Tried:
        lost = allocation.reach(share)
        _write(study, rankings, lost, path)
        _, reached = measured_speedup(original, path, feed, threads=threads)
        return _Tried(tuple(lost), reached)

    found = _searched(tried, speedup, _Tried(tuple([0] * len(rankings)), 1.0))
    return Plan(found.lost, found.reached, timed=True)


@dataclass(frozen=True)
class _Tried:
    """Units lost by each group, and how many times as fast the model was measured."""

    lost: tuple[int, ...]
    reached: float


def _searched(tried: Callable[[float], _Tried], speedup: float, start: _Tried) -> _Tried:
    """Correct the share of time to take out by what it did, until the speed-up is near."""
    wanted = share = 1 - 1 / speedup
    low, high, best = 0.0, _MOST_SHARE, start
    for _ in range(_CORRECTIONS):
        one = tried(share)
        if abs(math.log(one.reached / speedup)) < abs(math.log(best.reached / speedup)):
            best = one
        if abs(one.reached / speedup - 1) <= NEAR:
            break
        low, high = (share, high) if one.reached < speedup else (low, share)
        corrected = share + wanted - (1 - 1 / one.reached)
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


def by_widths(survey: Survey, widths: Mapping[str, int]) -> Plan:
    """Keep so many channels of each named weight.

    Raises:
        InvalidRecipe: a name that makes no channels, a pinned group, or an impossible width.
    """
    lost = [0] * len(survey.groups)
    told: dict[int, str] = {}
    for name, width in widths.items():
        index = _named(survey, name)
        if index in told and lost[index] != _lost(survey, index, name, width):
            raise InvalidRecipe(
                f"widths of {told[index]!r} and {name!r} differ, but they go together",
                hint="name one of them, or give both the same width",
            )
        lost[index] = _lost(survey, index, name, width)
        told[index] = name
    return Plan(tuple(lost), survey.costs("macs").saved(lost))


def _named(survey: Survey, name: str) -> int:
    """The group of that name, or the one whose channels that weight makes."""
    for index, group in enumerate(survey.groups):
        if group.name == name:
            return index
    for index, group in enumerate(survey.groups):
        if name in [place.value for place in group.producers]:
            return index
    for group in survey.structure.pinned:
        if name in [group.name, *(place.value for place in group.producers)]:
            raise InvalidRecipe(f"{name!r} cannot lose channels: {group.reason}")
    names = ", ".join(group.name for group in survey.groups[:20])
    raise InvalidRecipe(
        f"no weight named {name!r} makes channels that can be pruned",
        hint=f"there are {names}" if names else "nothing in this model can be pruned",
    )


def _lost(survey: Survey, index: int, name: str, kept: int) -> int:
    group = survey.groups[index]
    each = survey.width(group)
    if kept > each * len(group.units):
        raise InvalidRecipe(f"{name!r} has {each * len(group.units)} channels, not {kept}")
    if kept % each:
        raise InvalidRecipe(
            f"{name!r} cannot keep {kept} channels: they go {each} at a time",
            hint=f"give a multiple of {each}",
        )
    return len(group.units) - kept // each
