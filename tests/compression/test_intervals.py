"""Intervals hold what they promise: simulated, answers by themselves and answers together."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models import build, normal, written
from worker.compression.calibration import CalibrationSet
from worker.compression.fidelity import OutputFidelity, Reference
from worker.compression.fidelity.intervals import exact, of_mean, paired, trials

CASES = 400
COVERED = 0.93
WORST_SHARE = 0.8
"""Of the answers of a sample that goes wrong."""


def drawn(
    rng: np.random.Generator, sizes: np.ndarray, share: float, *, together: bool
) -> np.ndarray:
    """Wrong answers of each sample in CASES experiments; together: most of a sample or none."""
    shape = (CASES, len(sizes))
    if not together:
        return rng.binomial(sizes, share, shape)
    return rng.binomial(
        sizes, np.where(rng.random(shape) < share / WORST_SHARE, WORST_SHARE, 0)
    )


def sample_sizes(rng: np.random.Generator, count: int, *, together: bool) -> np.ndarray:
    return rng.integers(5, 60, count) if together else np.ones(count, int)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("count", [16, 64, 256])
@pytest.mark.parametrize("share", [0.002, 0.01, 0.05])
def test_an_interval_covers_the_true_share_of_changed_answers(
    share: float, count: int, together: bool
) -> None:
    rng = np.random.default_rng(count)
    sizes = sample_sizes(rng, count, together=together)
    wrong = drawn(rng, sizes, share, together=together).sum(1)
    seen = {int(sum_): exact(sum_ / sizes.sum(), trials(sizes)) for sum_ in np.unique(wrong)}
    covered = [seen[int(sum_)][0] <= share <= seen[int(sum_)][1] for sum_ in wrong]
    assert np.mean(covered) >= COVERED


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("count", [16, 64, 256])
@pytest.mark.parametrize("share", [0.002, 0.01, 0.05])
def test_an_interval_covers_the_true_loss_of_accuracy(
    share: float, count: int, together: bool
) -> None:
    rng = np.random.default_rng(count + 1)
    sizes = sample_sizes(rng, count, together=together)
    lost = drawn(rng, sizes, share + 0.01, together=together)
    gained = np.minimum(drawn(rng, sizes, 0.01, together=together), sizes - lost)
    change, total = lost - gained, sizes.sum()
    pairs = [(one[one > 0].sum() / total, -one[one < 0].sum() / total) for one in change]
    found = {pair: paired(*pair, trials(sizes)) for pair in set(pairs)}
    covered = [found[pair][0] <= share <= found[pair][1] for pair in pairs]
    assert np.mean(covered) >= COVERED


@pytest.mark.parametrize("count", [8, 16, 64])
def test_an_interval_covers_the_mean_of_skewed_figures(count: int) -> None:
    """As the angles between embeddings are: most small, a few large."""
    rng = np.random.default_rng(count)
    spread = 0.7
    found = []
    for _ in range(CASES):
        rows = np.column_stack([rng.lognormal(0, spread, count), np.ones(count)])
        low, high = of_mean(rows) or (0.0, 0.0)
        found.append(low <= np.exp(spread**2 / 2) <= high)
    assert np.mean(found) >= COVERED - 0.01


def test_one_figure_has_no_interval_and_equal_ones_have_no_width() -> None:
    assert of_mean(np.array([[0.3, 1.0]])) is None
    assert of_mean(np.array([[0.25, 1.0]] * 9)) == (0.25, 0.25)


def test_no_change_in_few_samples_does_not_prove_no_drop() -> None:
    assert exact(0, 64) == (0, pytest.approx(0.0560, abs=1e-3))
    assert paired(0, 0, 64)[1] == pytest.approx(0.0560, abs=1e-3)


@pytest.mark.parametrize(
    ("seen", "count", "low", "high"),
    [(1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (3, 200, 0.0031, 0.0432)],
)
def test_an_exact_interval_is_that_of_the_tables(
    seen: int, count: int, low: float, high: float
) -> None:
    assert exact(seen / count, count) == pytest.approx((low, high), abs=1e-4)


def test_a_sample_of_many_answers_is_one_trial() -> None:
    assert trials(np.ones(12)) == 12
    assert trials(np.full(12, 40)) == pytest.approx(12)
    assert trials(np.array([1000, *[1] * 9])) < 1.1


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_what_was_seen(seen: tuple[int, int]) -> None:
    events, count = seen
    low, high = exact(events / count, count)
    assert 0 <= low <= events / count <= high <= 1
    low, high = paired(events / count, 0, count)
    assert -1 <= low <= events / count <= high <= 1


# Which trials there are in the outputs of a model


def compared(folder: Path, samples: CalibrationSet) -> OutputFidelity:
    """A classifier against itself: no answer changes, the interval tells the trials."""
    text = "m (float[n,4] x) => (float[n,3] y) { y = MatMul (x, w) }"
    path = written(build(text, {"w": normal(4, 3)}), folder / "m.onnx")
    fidelity, _ = Reference(path, samples, {"y": "class"}, workdir=folder).compare(path)
    return fidelity.outputs[0]


@pytest.mark.parametrize(
    ("batched", "carried", "expected"), [(True, {}, 24), (False, {}, 3), (False, {"x": "y"}, 1)]
)
def test_answers_of_one_sample_or_sequence_are_one_trial_unless_rows_are_apart(
    tmp_path: Path, batched: bool, carried: dict[str, str], expected: int
) -> None:
    feeds = [{"x": normal(8, 4, seed=seed)} for seed in range(3)]
    samples = CalibrationSet(feeds, "evaluation", batched=batched)
    if carried:
        # A state that nothing reads: only the order of the samples matters here.
        samples = CalibrationSet(feeds, "evaluation", carried={"unread": "unread"})
    found = compared(tmp_path, samples)
    assert found.answers == 24
    assert found.interval == pytest.approx(exact(0.0, expected))
