import pytest

from worker.compression.benchmark import Latency, Percentiles
from worker.compression.fidelity import Accuracy, Fidelity, OutputFidelity
from worker.compression.passes import Target
from worker.compression.recipe import Goal
from worker.compression.report import Size
from worker.compression.verdict import Evidence, in_bytes, judge


def size(count: int, *, zeros: float = 0.0) -> Size:
    return Size(
        bytes=count,
        compressed_bytes=count // 2,
        parameters=1000,
        nonzero_parameters=round(1000 * (1 - zeros)),
        macs=10,
        peak_memory_bytes=None,
        ops={"Conv": 1},
    )


def latency(verdict: str, interval: tuple[float, float], *, threads: int = 1) -> Latency:
    middle = sum(interval) / 2
    return Latency(
        shapes={"x": [1]},
        threads=threads,
        rounds=20,
        before=Percentiles(p50=10, p90=11, p99=12),
        after=Percentiles(p50=10 / middle, p90=11, p99=12),
        speedup=middle,
        interval=interval,
        verdict=verdict,
    )


def fidelity(lost: float, *, samples: int = 100) -> Fidelity:
    output = OutputFidelity(
        name="y",
        kind="class",
        identical=False,
        sqnr_db=30,
        worst_channel=None,
        cosine=0.99,
        max_abs=0.1,
        argmax_agreement=1 - lost,
        drop=lost,
        interval=(lost / 2, lost * 2 + 0.01),
    )
    return Fidelity(samples=samples, source="evaluation", outputs=[output])


def evidence(**changed: object) -> Evidence:
    given: dict[str, object] = {
        "goal": Goal(),
        "target": Target(),
        "automatic": False,
        "verified": True,
        "methods": ("static_quantization",),
        "sizes": (size(1000), size(300)),
        "latency": [latency("faster", (1.9, 2.1))],
        "fidelity": fidelity(0.005),
        "accuracy": None,
        "reason": None,
    }
    return Evidence(**{**given, **changed})


UNRELIABLE = [latency("unreliable", (1.9, 2.1))]
SLOWER = [latency("slower", (0.5, 0.6))]


@pytest.mark.parametrize(
    ("changed", "outcome"),
    [
        ({}, "as_asked"),
        ({"latency": SLOWER}, "as_asked_but_slower"),
        ({"fidelity": fidelity(0.2)}, "as_asked_but_worse"),
        ({"fidelity": fidelity(0.2), "latency": SLOWER}, "as_asked_but_worse"),
        ({"verified": False}, "not_verified"),
        ({"target": Target(cpu="arm64")}, "not_measured_here"),
        ({"automatic": True}, "better"),
        ({"automatic": True, "verified": False}, "not_verified"),
        ({"automatic": True, "fidelity": fidelity(0.2)}, "not_better"),
        ({"automatic": True, "latency": SLOWER}, "not_better"),
        ({"automatic": True, "latency": [latency("faster", (1.01, 1.3))]}, "not_better"),
        ({"automatic": True, "latency": UNRELIABLE}, "not_better"),
        ({"automatic": True, "goal": Goal(max_bytes=200)}, "not_better"),
        ({"automatic": True, "goal": Goal(max_latency_ms=1)}, "not_better"),
        ({"automatic": True, "reason": "nothing was faster"}, "not_better"),
    ],
)
def test_the_outcome_follows_from_the_evidence(
    changed: dict[str, object], outcome: str
) -> None:
    assert judge(evidence(**changed)).outcome == outcome


def test_smaller_counts_only_where_it_is_not_slower() -> None:
    goal = Goal(objective="size")
    equal = [latency("equal", (0.98, 1.03))]
    assert judge(evidence(automatic=True, goal=goal, latency=equal)).outcome == "better"
    assert judge(evidence(automatic=True, goal=goal, latency=SLOWER)).outcome == "not_better"
    barely = (size(1000), size(960))
    verdict = judge(evidence(automatic=True, goal=goal, latency=equal, sizes=barely))
    assert verdict.outcome == "not_better"


def test_the_sentence_says_how_far_the_interval_reaches() -> None:
    sentence = judge(evidence()).sentence
    assert "0.5 % (95 %: at most 2 %)" in sentence
    assert "100 held-out samples" in sentence


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"kind": "embedding"}, "1 - cosine of the embeddings: 0.5 %"),
        ({"drop": 1.0, "sqnr_db": -100.0}, "Output 'y' is broken"),
        (
            {"drop": 1.0, "interval": (0.9, 1.0)},
            "Changed answers: 100 %, on 1 held-out sample.",
        ),
    ],
)
def test_the_sentence_says_what_was_lost(output: dict[str, object], words: str) -> None:
    both = fidelity(0.005, samples=1)
    changed = [both.outputs[0].model_copy(update=output)]
    sentence = judge(evidence(fidelity=both.model_copy(update={"outputs": changed}))).sentence
    assert words in sentence


def test_a_busy_machine_is_the_reason_and_not_the_model() -> None:
    verdict = judge(evidence(automatic=True, latency=UNRELIABLE))
    assert verdict.outcome == "not_better"
    assert "too busy to measure" in verdict.sentence
    assert "not faster" not in verdict.sentence
    worse = judge(evidence(automatic=True, latency=UNRELIABLE, fidelity=fidelity(0.2)))
    assert "outside the bound" in worse.sentence


def test_few_samples_that_show_a_loss_say_so() -> None:
    verdict = judge(evidence(verified=False, fidelity=fidelity(0.2)))
    assert verdict.outcome == "not_verified"
    assert "That is outside the bound" in verdict.sentence
    doubted = judge(evidence(verified=False, doubt="all samples are alike"))
    assert "Not verified: all samples are alike." in doubted.sentence


def test_zeros_are_never_sold_as_speed() -> None:
    pruned = (size(1000), size(1000, zeros=0.2))
    verdict = judge(evidence(methods=("magnitude_pruning",), sizes=pruned))
    assert "20 % of the weights are zero" in verdict.sentence
    assert "not latency or memory" in verdict.sentence


def test_a_slower_shape_at_the_asked_threads_is_not_hidden_by_a_faster_one() -> None:
    timed = [latency("faster", (1.9, 2.1)), latency("slower", (0.7, 0.8))]
    assert judge(evidence(automatic=True, latency=timed)).outcome == "not_better"
    elsewhere = [latency("faster", (1.9, 2.1)), latency("slower", (0.7, 0.8), threads=2)]
    assert judge(evidence(automatic=True, latency=elsewhere)).outcome == "better"


@pytest.mark.parametrize(
    ("count", "words"), [(999, "999 bytes"), (1234, "1.23 kB"), (4_500_000, "4.5 MB")]
)
def test_sizes_are_said_in_units_people_use(count: int, words: str) -> None:
    assert in_bytes(count) == words


def test_an_output_that_was_lost_counts_although_the_labels_are_about_another() -> None:
    kept = fidelity(0.0).outputs[0]
    gone = kept.model_copy(update={"name": "z", "drop": 1.0, "sqnr_db": -100.0})
    both = fidelity(0.0).model_copy(update={"outputs": [kept, gone]})
    fine = Accuracy(
        metric="top1", before=0.9, after=0.9, drop=0.0, interval=(0.0, 0.01), samples=100
    )
    verdict = judge(evidence(fidelity=both, accuracy=fine))
    assert verdict.outcome == "as_asked_but_worse"
    assert verdict.drop == 1.0
