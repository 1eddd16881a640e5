"""What few samples say of the answers that would change on others."""

import numpy as np
import pytest

from worker.compression.fidelity.margins import Margins


def logits(count: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=2.0, size=(count, 10)).astype(np.float32)


def noisy(values: np.ndarray, scale: float, *, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(scale=scale, size=values.shape)
    return (values + noise).astype(np.float32)


@pytest.mark.parametrize("scale", [0.05, 0.2, 0.6])
def test_sixteen_samples_foretell_the_share_that_changes(scale: float) -> None:
    many = logits(50_000, seed=1)
    changed = np.mean(many.argmax(-1) != noisy(many, scale, seed=2).argmax(-1))
    estimates = []
    for seed in range(20):
        few, margins = logits(16, seed=10 + seed), Margins()
        margins.add(few, noisy(few, scale, seed=100 + seed))
        estimates.append(margins.likely_drop())
    assert np.mean(estimates) == pytest.approx(changed, rel=0.35)


def test_sixteen_samples_seldom_call_a_loss_small() -> None:
    many = logits(50_000, seed=1)
    changed = np.mean(many.argmax(-1) != noisy(many, 0.2, seed=2).argmax(-1))
    estimates = []
    for seed in range(60):
        few, margins = logits(16, seed=200 + seed), Margins()
        margins.add(few, noisy(few, 0.2, seed=300 + seed))
        estimates.append(margins.likely_drop() or 0.0)
    assert np.mean(np.array(estimates) < changed / 3) < 0.1


def test_large_errors_far_from_any_border_change_nothing() -> None:
    before = logits(2000, seed=6)
    after = noisy(before, 0.2, seed=7)
    plain, outliers = Margins(), Margins()
    plain.add(before, after)
    # One answer in 100, each far ahead of the next, gains ten times what separates it.
    surest = np.sort(before, axis=-1)
    far = np.argsort(surest[:, -1] - surest[:, -2])[-20:]
    after[far, before[far].argmax(-1)] += 20
    outliers.add(before, after)
    assert (outliers.likely_drop() or 0) < 2.2 * (plain.likely_drop() or 0)


def test_probabilities_tell_the_same_as_their_logits() -> None:
    before = logits(64, seed=3)
    after = noisy(before, 0.2, seed=4)
    of_logits, of_probabilities = Margins(), Margins()
    of_logits.add(before, after)
    of_probabilities.add(softmax(before), softmax(after))
    expected = of_logits.likely_drop()
    assert expected is not None
    assert of_probabilities.likely_drop() == pytest.approx(expected, rel=1e-3)


def test_what_did_not_change_will_not_change() -> None:
    margins = Margins()
    margins.add(logits(8, seed=5), logits(8, seed=5))
    assert margins.likely_drop() == 0


def test_one_number_has_no_answer_that_could_change() -> None:
    margins = Margins()
    margins.add(np.ones((4, 1), np.float32), np.ones((4, 1), np.float32))
    assert margins.likely_drop() is None


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return (powers / powers.sum(-1, keepdims=True)).astype(np.float32)
