"""How many units each group loses: least error for what it saves, step by step."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from worker.compression.channels.costs import Costs
from worker.compression.channels.criteria import Ranking
from worker.compression.channels.groups import Group

# How near an amount must be reached, and which share of a small one may be missed at most.
NEAR, _NEAR_SHARE = 0.03, 0.2
# Aim nearer than what is promised.
_AIM = 0.005
# What a step may overshoot where no smaller one comes near: this first, then anything.
_OVER = 0.025
# A group keeps at least this share of its units.
_LEAST_SHARE = 1 / 8


def tolerance(amount: float) -> float:
    """By how much of the whole cost an amount may be missed, or overshot."""
    return min(NEAR, _NEAR_SHARE * amount)


@dataclass(frozen=True)
class Steps:
    """Numbers of units that a group may lose, from none on."""

    lost: tuple[int, ...]

    def after(self, lost: int) -> int | None:
        return next((more for more in self.lost if more > lost), None)


def steps(group: Group, width: int, round_to: int) -> Steps:
    """Widths that are multiples of `round_to` channels, where a unit is `width` channels wide.

    Small groups take the finest step that still leaves them a choice.
    """
    units = len(group.units)
    step = max(1, round_to // width) if width < round_to else 1
    while step > 1 and units < 2 * step:
        step //= 2
    least = max(1, min(step, units - 1), math.ceil(units * _LEAST_SHARE))
    kept = [units, *(size for size in range(units - 1, 0, -1) if size % step == 0)]
    return Steps(tuple(units - size for size in kept if size >= least))


@dataclass(frozen=True)
class Allocation:
    """What a plan is made from: rankings, steps of each group, coarse to fine, and the cost.

    `over`: what may be overshot, little first.
    """

    rankings: Sequence[Ranking]
    steps: Sequence[Sequence[Steps]]
    costs: Costs
    over: Sequence[float] = (0.012, _OVER)

    def saved(self, lost: Sequence[int]) -> float:
        return self.costs.saved(lost)

    def reach(self, amount: float) -> list[int]:
        """Units lost by each group so that `amount` of the cost goes, as nearly as steps allow.

        Finer steps are only taken where the coarser ones end too far from the amount; where
        the finest do so as well, a step too far is taken if that ends nearer.
        """
        lost = [0] * len(self.rankings)
        near = tolerance(amount)
        for steps_of_groups, over in product(self.steps, self.over):
            lost = self._descend(lost, amount, min(over, near), steps_of_groups)
            if self.saved(lost) >= amount - near:
                return lost
        beyond = [self._descend(lost, amount, over, self.steps[-1]) for over in (_OVER, amount)]
        return min((lost, *beyond), key=lambda one: abs(self.saved(one) - amount))

    def _descend(
        self, start: Sequence[int], amount: float, over: float, steps_of_groups: Sequence[Steps]
    ) -> list[int]:
        lost = list(start)
        whole = self.costs.total([0] * len(lost))
        goal = whole * (1 - amount)
        now = self.costs.total(lost)
        while now > goal + _AIM * whole:
            best = self._cheapest(lost, now - goal + over * whole, steps_of_groups)
            if best is None:
                break
            lost[best[0]] = best[1]
            now = self.costs.total(lost)
        return lost

    def _cheapest(
        self, lost: Sequence[int], most: float, steps_of_groups: Sequence[Steps]
    ) -> tuple[int, int] | None:
        """The step of least error for what it saves, among those that do not overshoot."""
        best: tuple[float, int, int] | None = None
        for group, ranking in enumerate(self.rankings):
            more = steps_of_groups[group].after(lost[group])
            if more is None:
                continue
            saved = self.costs.saving(lost, group, more - lost[group])
            if saved <= 0 or saved > most:
                continue
            price = float(ranking.errors[more] - ranking.errors[lost[group]]) / saved
            if best is None or price < best[0]:
                best = (price, group, more)
        return None if best is None else best[1:]
