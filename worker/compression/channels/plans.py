"""How many units each group is to lose: by amount, or as it was told."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.compression.channels.allocation import Allocation, Steps, steps
from worker.compression.channels.costs import Costs, Of
from worker.compression.channels.criteria import Ranking
from worker.compression.channels.latency import slower
from worker.compression.channels.study import Study
from worker.compression.channels.survey import Survey
from worker.compression.errors import InvalidRecipe

# Widths that kernels take whole: a block of AVX512, of AVX2 and ARM, and the least of any.
_WIDE_BLOCK, _BLOCK, _LEAST_BLOCK = 16, 8, 4
# Coarse steps may lose so many times what single channels would, or this much anyway.
_TIMES_AS_FAR, _HARMLESS = 1.5, 1e-3
# Plans that are made anew because an odd width turned out to be slow.
_REPLANNED = 3


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
        allocation = Allocation(rankings, ladder(survey, [block]), found)
        lost = allocation.reach(amount)
        return Plan(tuple(lost), allocation.saved(lost))
    sizes = _affordable(survey, rankings, amount, found)
    slow: dict[int, int] = {}
    for _ in range(_REPLANNED):
        allocation = Allocation(rankings, ladder(survey, sizes, slow), found)
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
        lost = Allocation(rankings, ladder(survey, sizes[start:]), costs).reach(amount)
        pairs = zip(rankings, lost, strict=True)
        errors.append(sum(float(one.errors[count]) for one, count in pairs))
    most = max(_TIMES_AS_FAR * min(errors), _HARMLESS)
    return sizes[next(start for start, error in enumerate(errors) if error <= most) :]


def kernel_block(flags: Sequence[str]) -> int:
    """Channels that this CPU's convolutions take at once (mlas NchwcBlockSize)."""
    return _WIDE_BLOCK if "avx512f" in flags else _BLOCK


def ladder(
    survey: Survey, sizes: Sequence[int], slow: Mapping[int, int] | None = None
) -> list[list[Steps]]:
    """Steps of all groups for sizes in channels; `slow` says which may not go finer."""
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
