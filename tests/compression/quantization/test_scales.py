import numpy as np
import pytest

from tests.models import normal
from worker.compression.quantization.scales import (
    QuantizedWeight,
    activation_scale,
    quantize_bias,
    quantize_weight,
    wide_enough,
)

UINT8, INT8 = np.dtype(np.uint8), np.dtype(np.int8)


@pytest.mark.parametrize("axis", [0, 1, None])
def test_a_weight_comes_back_within_half_a_step(axis: int | None) -> None:
    array = normal(4, 6, 3, 3)
    array[1] *= 100
    weight = quantize_weight(array, axis=axis)
    assert np.abs(weight.values.astype(int)).max() == 127
    assert weight.scale.shape == (() if axis is None else (array.shape[axis],))
    shape = [-1 if place == axis else 1 for place in range(4)]
    error = np.abs(weight.dequantized() - array)
    assert (error <= weight.scale.reshape(shape) * 0.5001).all()


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 64), (4, 7)])
def test_the_largest_magnitude_follows_from_the_bits(bits: int, largest: int) -> None:
    values = quantize_weight(normal(8, 50), axis=0, bits=bits).values
    assert np.abs(values.astype(int)).max(axis=1).tolist() == [largest] * 8


def test_a_channel_of_zeros_has_a_scale_that_can_be_divided_by() -> None:
    array = normal(3, 5)
    array[1] = 0
    weight = quantize_weight(array, axis=0)
    assert (weight.scale > 0).all()
    assert (weight.values[1] == 0).all()
    assert quantize_weight(np.zeros((0, 3), np.float32), axis=1).values.shape == (0, 3)


@pytest.mark.parametrize("axis", [0, None])
@pytest.mark.parametrize("input_scale", [1e-3, 1e-25])
def test_a_bias_beyond_an_int32_widens_the_scale_of_the_weight(
    axis: int | None, input_scale: float
) -> None:
    array = normal(4, 9) * (np.float32([1e-12, 1, 1, 1])[:, None] if axis == 0 else 1e-12)
    bias = np.float32([3, -2, 1e-3, 0])
    given = np.float32(input_scale)
    weight = wide_enough(quantize_weight(array, axis=axis), bias, given)
    values, scale = quantize_bias(bias, weight, given)
    assert (np.abs(values.astype(np.int64)) < 2**30 + 1).all()
    np.testing.assert_allclose(values * scale.astype(np.float64), bias, rtol=1e-3, atol=1e-6)


def test_a_bias_that_fits_leaves_the_weight_as_it_was_rounded() -> None:
    weight = QuantizedWeight(np.ones((2, 2), np.int8), np.ones(2, np.float32), 0)
    assert wide_enough(weight, np.ones(2, np.float32), np.float32(1)) is weight


@pytest.mark.parametrize("dtype", [UINT8, INT8])
@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 3.0), (0.5, 2.0), (-2.0, -0.5), (0.0, 0.0), (0.0, 1e-45)]
)
def test_the_range_of_an_activation_always_holds_zero(
    low: float, high: float, dtype: np.dtype
) -> None:
    scale = activation_scale(low, high, dtype)
    limits = np.iinfo(dtype)
    steps = np.array([limits.min, limits.max]) - float(scale.zero_point)
    lowest, highest = steps * scale.scale
    step = float(scale.scale)
    assert lowest <= min(low, 0) + step
    assert highest >= max(high, 0) - step
    assert limits.min <= scale.zero_point <= limits.max
