import math

import numpy as np
import pytest

from tests.models import normal
from worker.compression.ranges import Observed


def seen(*arrays: np.ndarray) -> Observed:
    observed = Observed()
    for array in arrays:
        observed.update(array, histogram=True)
    return observed


def test_the_range_is_exact_over_all_samples() -> None:
    arrays = [normal(10_000, seed=seed, scale=scale) for seed, scale in enumerate((0.1, 30, 2))]
    together = np.concatenate(arrays)
    assert seen(*arrays).range("minmax") == (float(together.min()), float(together.max()))


def test_a_growing_histogram_loses_no_value_and_finds_the_percentile() -> None:
    arrays = [normal(10_000, seed=seed, scale=scale) for seed, scale in enumerate((0.1, 30, 2))]
    observed = seen(*arrays)
    assert observed.counts.sum() == 30_000
    low, high = observed.range("percentile")
    together = np.concatenate(arrays)
    assert np.count_nonzero((together < low) | (together > high)) <= 3
    # A bin further in, more than one in 20,000 would be outside on either side.
    step = 2 * 2.0 ** (observed.exponent or 0) / len(observed.counts)
    assert np.count_nonzero(together < low + step) >= 1
    assert np.count_nonzero(together > high - step) >= 1
    assert low >= observed.minimum
    assert high <= observed.maximum


def test_the_order_of_the_samples_does_not_matter() -> None:
    arrays = [normal(1000, seed=seed, scale=scale) for seed, scale in enumerate((50, 0.01, 3))]
    first, second = seen(*arrays), seen(*reversed(arrays))
    np.testing.assert_array_equal(first.counts, second.counts)
    assert first.range("percentile") == second.range("percentile")


def test_one_outlier_in_a_million_is_outside_of_the_percentile() -> None:
    array = np.abs(normal(1_000_000))
    array[7] = 1000
    observed = seen(array)
    assert observed.range("minmax")[1] == 1000
    assert observed.range("percentile")[1] < 10


@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
def test_infinite_values_leave_a_mark_and_the_range_alone(special: float) -> None:
    observed = seen(np.array([1.0, special, -2.0], np.float32))
    assert observed.range("minmax") == (-2.0, 1.0)
    assert not observed.finite


def test_empty_and_all_zero_tensors_are_taken_in() -> None:
    observed = seen(np.zeros((0, 3), np.float32))
    assert not observed.seen
    observed.update(np.zeros(4, np.float32), histogram=True)
    assert observed.range("percentile") == (0.0, 0.0)
    observed.update(np.array([1e-30, 1e30], np.float32), histogram=True)
    assert observed.range("minmax")[1] == pytest.approx(1e30)
