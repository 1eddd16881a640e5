"""How much of the bound a candidate uses up, where few samples could flatter it."""

from pathlib import Path

import pytest

from tests.compression.test_search_memory import trial
from worker.compression.fidelity import Accuracy, Fidelity, OutputFidelity, bound_used
from worker.compression.recipe import Goal
from worker.compression.search.trial import Trial, inside

LIMITS = {"max_drop": 0.01, "min_sqnr_db": 20.0}


def answered(*, drop: float, likely: float, answers: int, samples: int = 16) -> Fidelity:
    output = OutputFidelity(
        name="y",
        kind="class",
        identical=False,
        sqnr_db=30.0,
        worst_channel=None,
        cosine=1.0,
        max_abs=0.1,
        argmax_agreement=1 - drop,
        drop=drop,
        interval=(0.0, 0.2),
        answers=answers,
        likely_drop=likely,
    )
    return Fidelity(samples=samples, source="calibration", outputs=[output])


def test_sixteen_equal_answers_do_not_hide_that_others_will_change() -> None:
    few = answered(drop=0.0, likely=0.03, answers=16)
    assert bound_used(few, None, **LIMITS) == pytest.approx(3 * (1 + 2 / 4))


def test_the_more_samples_foretell_a_drop_the_smaller_its_margin() -> None:
    few = answered(drop=0.0, likely=0.008, answers=16)
    assert bound_used(few, None, **LIMITS) > 1
    assert bound_used(few, None, **LIMITS, witnesses=84) < 1


def test_many_answers_count_for_themselves() -> None:
    many = answered(drop=0.005, likely=0.03, answers=2000)
    assert bound_used(many, None, **LIMITS) == pytest.approx(0.5)


def test_many_labels_count_for_themselves() -> None:
    few = answered(drop=0.0, likely=0.03, answers=16)
    accuracy = Accuracy(
        metric="top-1", before=0.9, after=0.9, drop=0.0, interval=(0.0, 0.01), samples=300
    )
    assert bound_used(few, accuracy, **LIMITS) == 0


def test_calibration_samples_may_tell_against_a_candidate(tmp_path: Path) -> None:
    one = trial(tmp_path)
    fine = answered(drop=0.0, likely=0.0, answers=16)
    spoiled = answered(drop=0.0625, likely=0.05, answers=32, samples=32)
    assert inside(replaced(one, fine, None), Goal())
    assert not inside(replaced(one, fine, spoiled), Goal())


def replaced(one: Trial, fidelity: Fidelity, seen: Fidelity | None) -> Trial:
    return Trial(one.name, one.passes, one.made, fidelity=fidelity, seen=seen)
