import numpy as np
import pytest

from worker.compression.quantization.rounding import clipped_scales, compensated

LIMITS = (-127, 127)


def problem(
    *, groups: int = 1, inputs: int = 40, outputs: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A weight, its scale, and the Gram of inputs that depend on each other."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(groups, inputs, outputs))
    mixing = rng.normal(size=(groups, inputs, inputs)) * np.geomspace(1, 0.01, inputs)
    gram = np.swapaxes(mixing, 1, 2) @ mixing
    return weight, np.abs(weight).max(axis=1) / 127, gram


def error(left: np.ndarray, gram: np.ndarray) -> np.ndarray:
    return np.einsum("gio,gij,gjo->go", left, gram, left)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("inputs", [40, 300, 700])
def test_the_error_in_the_output_is_a_fraction_of_that_of_nearest(
    groups: int, inputs: int
) -> None:
    weight, scale, gram = problem(groups=groups, inputs=inputs)
    steps = scale[:, None]
    nearest = np.rint(weight / steps)
    values = compensated(weight, scale, gram.copy(), limits=LIMITS)
    assert np.abs(values).max() <= 127
    ours, theirs = (error(weight - steps * q, gram).sum() for q in (values, nearest))
    assert ours < theirs / 2


def test_independent_inputs_are_rounded_to_nearest() -> None:
    weight, scale, _ = problem()
    gram = np.eye(40)[None] * np.arange(1, 41)
    values = compensated(weight, scale, gram.copy(), limits=LIMITS)
    np.testing.assert_array_equal(values, np.rint(weight / scale[:, None]))


def test_zeros_stay_zero_and_the_others_make_up_for_it() -> None:
    weight, scale, gram = problem()
    weight[:, ::3] = 0
    values = compensated(weight, scale, gram.copy(), limits=LIMITS)
    assert (values[:, ::3] == 0).all()


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("inputs", [40, 300])
def test_noise_of_the_inputs_is_passed_on_less(groups: int, inputs: int) -> None:
    weight, scale, gram = problem(groups=groups, inputs=inputs)
    noise = np.full((groups, inputs), 0.02 * np.trace(gram[0]) / inputs)

    def loss(values: np.ndarray) -> float:
        made = scale[:, None] * values
        passed_on = np.einsum("gi,gio->go", noise, made**2)
        return float((error(weight - made, gram) + passed_on).sum())

    blind = compensated(weight, scale, gram.copy(), limits=LIMITS)
    aware = compensated(weight, scale, gram.copy(), limits=LIMITS, noise=noise)
    assert loss(aware) < 0.8 * loss(blind)
    best = np.linalg.solve(gram + noise[:, :, None] * np.eye(inputs), gram @ weight)
    assert loss(aware) < 1.1 * loss(best / scale[:, None])


def test_inputs_that_never_vary_do_no_harm() -> None:
    weight, scale, gram = problem()
    for dead in (
        np.zeros_like(gram),
        gram * (np.arange(40) > 5) * (np.arange(40) > 5)[:, None],
    ):
        values = compensated(weight, scale, dead.copy(), limits=LIMITS)
        assert np.abs(weight - scale[:, None] * values).max() < 1


def test_clipping_finds_the_scale_of_least_error() -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(1, 500, 3))
    weight[0, 0] = 6
    energy = np.ones((1, 500))
    scales = clipped_scales(weight, energy, 7)

    def loss(scale: np.ndarray) -> np.ndarray:
        steps = np.clip(np.rint(weight / scale[:, None]), -7, 7)
        return ((weight - scale[:, None] * steps) ** 2).sum(axis=1)

    whole = np.abs(weight).max(axis=1) / 7
    assert (loss(scales) < 0.8 * loss(whole)).all()


def test_a_channel_of_zeros_has_a_scale() -> None:
    weight = np.zeros((1, 4, 2))
    assert (clipped_scales(weight, np.ones((1, 4)), 127) > 0).all()
