"""What counts as better, what blocks a candidate, and what one costs before it is tried."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from tests import models
from worker.compression.assessment import Made
from worker.compression.benchmark import Latency, LatencyVerdict, Percentiles
from worker.compression.fidelity import Fidelity
from worker.compression.passes import (
    AnyPass,
    ChannelPruning,
    Compaction,
    GraphCleaning,
    RuntimeFusion,
)
from worker.compression.recipe import Recipe
from worker.compression.search.bench import Bench, ranked
from worker.compression.search.costs import Costs
from worker.compression.search.front import why_not
from worker.compression.search.trial import SPENT, Trial, shortfall
from worker.compression.subject import Subject, prepare


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return prepare(
        models.written(models.convnet(), tmp_path / "original.onnx"),
        Recipe(),
        workdir=tmp_path,
        progress=lambda stage, share, message: None,
        measure=lambda path, feed: None,
        quiet=lambda: nullcontext(False),
        heard=list,
    )


def wanting(subject: Subject, **goal: object) -> Subject:
    wanted = subject.recipe.goal.model_copy(update=goal)
    return replace(subject, recipe=subject.recipe.model_copy(update={"goal": wanted}))


def tried(
    subject: Subject,
    name: str,
    *,
    verdict: LatencyVerdict = "faster",
    speedup: float = 1.5,
    bytes: int = 100,
    passes: tuple[AnyPass, ...] = (GraphCleaning(),),
) -> Trial:
    times = Percentiles(p50=2 / speedup, p90=3, p99=4)
    return Trial(
        name=name,
        passes=passes,
        made=[Made(subject.original, passes[-1], 1.0, [], {})],
        bytes=bytes,
        fidelity=Fidelity(samples=64, source="calibration", outputs=[]),
        latency=Latency(
            shapes={},
            threads=1,
            rounds=10,
            before=times,
            after=times,
            speedup=speedup,
            interval=(speedup - 0.01, speedup + 0.01),
            verdict=verdict,
        ),
    )


def test_bytes_need_no_quiet_machine_but_what_is_slower_is_refused(subject: Subject) -> None:
    smaller = wanting(subject, objective="size")
    assert shortfall(smaller, tried(subject, "unsure", verdict="unreliable")) == ""
    assert "slower" in shortfall(smaller, tried(subject, "slow", verdict="slower"))
    large = tried(subject, "large", bytes=subject.model.bytes)
    assert "not smaller" in shortfall(smaller, large)


def test_a_disturbed_glance_refuses_nothing_but_a_disturbed_race_does(
    subject: Subject,
) -> None:
    glanced = tried(subject, "unsure", verdict="unreliable")
    assert shortfall(subject, glanced) == ""
    assert "no reliable" in shortfall(subject, replace(glanced, raced=True))


def test_one_runtime_only_has_to_be_clearly_faster(subject: Subject) -> None:
    fused = (GraphCleaning(), RuntimeFusion())
    portable = tried(subject, "portable", speedup=1.50)
    little = tried(subject, "little", speedup=1.53, passes=fused)
    clearly = tried(subject, "clearly", speedup=1.70, passes=fused)
    assert ranked(subject, [little, portable])[0] is portable
    assert ranked(subject, [portable, clearly])[0] is clearly


@pytest.mark.parametrize(
    ("limit", "nearest"), [({"max_bytes": 10}, "small"), ({"max_latency_ms": 0.001}, "fast")]
)
def test_where_nothing_meets_a_limit_the_nearest_is_named_with_what_blocked_it(
    limit: dict[str, float], nearest: str, subject: Subject
) -> None:
    limited = wanting(subject, **limit)
    small = tried(subject, "small", bytes=40, speedup=1.1)
    fast = tried(subject, "fast", bytes=90, speedup=3.0)
    said = why_not(limited, [tried(subject, "neither", speedup=1.0), small, fast])
    assert said.partition("the nearest first (")[2].startswith(f"{nearest}: its ")
    assert "over the limit of" in said


def test_a_candidate_is_not_begun_where_its_kind_took_too_long(subject: Subject) -> None:
    costs = Costs(subject)
    passes = [GraphCleaning(), ChannelPruning(amount=0.1)]
    assert costs.expected(passes) < 60
    costs.learn(passes, 60)
    costs.learn(passes, 20)
    more = [GraphCleaning(), ChannelPruning(amount=0.5)]
    assert costs.expected(more) == 60


def test_a_candidate_is_given_up_when_the_time_is_over(subject: Subject) -> None:
    # Under the eyes of the estimate it would fit; what a pass tells of itself ends it.
    bench = Bench(subject, deadline=float("inf"))
    late = [GraphCleaning()]

    def told(stage: str, share: float, message: str) -> None:
        bench.deadline = 0.0

    bench.subject = replace(subject, progress=told)
    assert bench.try_("late", late).reason == SPENT
    assert bench.try_("later", [GraphCleaning(), Compaction()]).reason == SPENT
