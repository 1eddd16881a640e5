import numpy as np
import pytest

from tests.models import normal
from worker.compression.ranges import Method, Observed

LEVELS = 255


def seen(array: np.ndarray) -> Observed:
    observed = Observed()
    for part in np.array_split(array, 40):
        observed.update(part, histogram=True)
    return observed


def error(array: np.ndarray, low: float, high: float) -> float:
    """Mean squared error of uint8 with this range."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / LEVELS
    zero = np.rint(-low / step)
    levels = np.clip(np.rint(array / step) + zero, 0, LEVELS)
    return float(np.square((levels - zero) * step - array).mean())


def heavy(seed: int = 0) -> np.ndarray:
    """Values with long tails."""
    return np.random.default_rng(seed).standard_t(3, 400_000).astype(np.float32)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("one_sided", [True, False])
def test_mse_finds_the_range_of_least_error(sign: int, one_sided: bool) -> None:
    array = sign * np.maximum(heavy(), 0 if one_sided else -1)
    low, high = seen(array).range("mse")
    found = error(array, low, high)
    lowest, highest = float(min(array.min(), 0)), float(max(array.max(), 0))
    grid = [
        error(array, lowest * a, highest * b)
        for a in np.linspace(0.1, 1, 20)
        for b in np.linspace(0.1, 1, 20)
    ]
    assert found < 1.1 * min(grid)
    assert found < 0.9 * error(array, lowest, highest)


def test_mse_leaves_a_range_alone_that_is_full() -> None:
    array = np.random.default_rng(0).uniform(-1, 2, 400_000).astype(np.float32)
    low, high = seen(array).range("mse")
    assert low == pytest.approx(-1, abs=0.03)
    assert high == pytest.approx(2, abs=0.03)


@pytest.mark.parametrize("transform", [lambda x: x, lambda x: np.maximum(x, 0), np.negative])
def test_entropy_cuts_tails_and_not_the_body(transform: np.ufunc) -> None:
    array = transform(heavy())
    low, high = seen(array).range("entropy")
    largest = float(np.abs(array).max())
    inside = np.mean((array >= low) & (array <= high))
    assert inside > 0.995
    assert max(-low, high) < 0.9 * largest


def test_entropy_leaves_a_range_alone_that_is_full() -> None:
    array = np.random.default_rng(0).uniform(-1, 2, 400_000).astype(np.float32)
    low, high = seen(array).range("entropy")
    assert (low, high) == pytest.approx((-1, 2), abs=0.05)


def test_zeros_do_not_narrow_the_range() -> None:
    array = np.maximum(normal(400_000), 0)
    sparse = np.concatenate([array, np.zeros(4_000_000, np.float32)])
    for method in ("mse", "entropy"):
        wide = seen(array).range(method)[1]
        assert seen(sparse).range(method)[1] == pytest.approx(wide, rel=0.15)


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
@pytest.mark.parametrize(
    "array",
    [
        np.zeros(100, np.float32),
        np.full(100, 3, np.float32),
        np.full(100, -3e-20, np.float32),
        np.float32([0, 1]),
        np.float32([-5, 1e30]),
    ],
)
def test_degenerate_values_have_a_range_within_what_was_seen(
    method: Method, array: np.ndarray
) -> None:
    observed = seen(array)
    low, high = observed.range(method)
    assert observed.minimum <= low <= high <= observed.maximum
