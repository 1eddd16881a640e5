"""Plans end near what was asked, by work and by time."""

import numpy as np
import pytest

from worker.compression.channels.allocation import Allocation, Steps
from worker.compression.channels.costs import Costs, Factor, Term
from worker.compression.channels.criteria import Ranking
from worker.compression.channels.speed import Tried, searched

UNITS = 64


def allocation(*step_sizes: int) -> Allocation:
    """One group of 64 units that is all the cost there is."""
    ranking = Ranking(tuple(range(UNITS)), np.arange(UNITS + 1) / UNITS)
    costs = Costs((Term(1.0, (Factor(UNITS, ((0, 1),)),)),), ((0,),))
    steps = [[Steps(tuple(range(0, UNITS, size)))] for size in step_sizes]
    return Allocation([ranking], steps, costs)


@pytest.mark.parametrize("amount", [0.05, 0.1, 0.2, 0.3])
def test_no_more_than_a_fifth_of_an_amount_is_missed_where_single_units_may_go(
    amount: float,
) -> None:
    found = allocation(16, 8, 4, 1)
    assert found.saved(found.reach(amount)) == pytest.approx(amount, rel=0.2)


def test_coarse_steps_that_come_near_are_kept() -> None:
    assert allocation(16, 8, 4, 1).reach(0.25) == [16]


@pytest.mark.parametrize(("amount", "lost"), [(0.1, 8), (0.05, 0), (0.07, 8)])
def test_the_nearer_side_is_taken_where_steps_are_too_coarse(amount: float, lost: int) -> None:
    assert allocation(8).reach(amount) == [lost]


@pytest.mark.parametrize("wanted", [1.1, 1.3, 2.0, 4.0])
@pytest.mark.parametrize("cleaned", [0.9, 1.0, 1.08])
def test_a_speed_up_is_reached_though_the_table_is_wrong(wanted: float, cleaned: float) -> None:
    """What is said to take a share of the time out takes up to half as much again."""

    def tried(share: float) -> Tried:
        real = min(0.98, 1.5 * share - 0.4 * share**2)
        return Tried((round(1000 * share),), cleaned / (1 - real))

    found = searched(tried, wanted, Tried((0,), cleaned))
    assert found.reached == pytest.approx(wanted, rel=0.05)
