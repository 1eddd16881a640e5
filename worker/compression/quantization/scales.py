"""From floats to integers: symmetric weights, asymmetric activations, biases of 32 bits."""

from dataclasses import dataclass

import numpy as np

# Largest magnitude of a weight. 7 bits go up to 64: two products of 255 * 64 fit 16 bits.
LARGEST = {8: 127, 7: 64, 4: 7}
_TINY = float(np.finfo(np.float32).tiny)
# The sum of a layer's products needs the other half of an int32.
_LARGEST_BIAS = 2.0**30


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """`values` times `scale` is the weight; a scale for each index of `axis`, or one in all."""

    values: np.ndarray
    scale: np.ndarray
    axis: int | None

    def dequantized(self) -> np.ndarray:
        """The weight as the layer sees it, float32."""
        scale = _along(self.scale, self.axis, self.values.ndim)
        return np.asarray(self.values * scale, np.float32)


@dataclass(frozen=True)
class Scale:
    """An activation is (q - zero_point) * scale; `zero_point` bears the type of q."""

    scale: np.float32
    zero_point: np.generic

    def rounded(self, array: np.ndarray) -> np.ndarray:
        """Numbers as they are behind Q and DQ, float32."""
        limits = np.iinfo(str(self.zero_point.dtype))
        zero = float(self.zero_point)
        steps = np.rint(array / self.scale)
        np.clip(steps, limits.min - zero, limits.max - zero, out=steps)
        return np.asarray(steps * self.scale, np.float32)


def quantize_weight(array: np.ndarray, *, axis: int | None, bits: int = 8) -> QuantizedWeight:
    """Round a float32 weight to symmetric integers; the largest magnitude fits exactly.

    As onnxruntime.quantization does with `symmetric`, and `reduce_range` for 7 bits.
    """
    largest = np.abs(array).max(axis=_others(axis, array.ndim), initial=0).astype(np.float64)
    scale = (largest / LARGEST[bits]).astype(np.float32)
    return round_to(array, np.where(scale < _TINY, np.float32(1), scale), axis=axis, bits=bits)


def round_to(
    array: np.ndarray, scale: np.ndarray, *, axis: int | None, bits: int = 8
) -> QuantizedWeight:
    """Round a float32 weight to the nearest multiples of a scale that is given."""
    values = array / _along(scale, axis, array.ndim)
    np.rint(values, out=values)
    np.clip(values, -LARGEST[bits], LARGEST[bits], out=values)
    return QuantizedWeight(values.astype(np.int8), scale.astype(np.float32), axis)


def wide_enough(
    weight: QuantizedWeight, bias: np.ndarray, input_scale: np.float32
) -> QuantizedWeight:
    """The weight with scales so large that the bias fits an int32.

    The bias is a multiple of the scales of input and weight: where the weight is tiny, a bias
    of ordinary size overflows, and the product of two tiny scales is zero.
    """
    needed = np.abs(bias.astype(np.float64)) / (_LARGEST_BIAS * np.float64(input_scale))
    needed = np.maximum(needed, _TINY / np.float64(input_scale))
    if weight.axis is None:
        needed = needed.max(initial=0)
    if (weight.scale >= needed).all():
        return weight
    scale = np.maximum(weight.scale, needed * 1.0001).astype(np.float32)
    return round_to(weight.dequantized(), scale, axis=weight.axis)


def quantize_bias(
    bias: np.ndarray, weight: QuantizedWeight, input_scale: np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """int32 values, and their scale: that of the layer's input times those of its weight."""
    scale = np.asarray(input_scale * weight.scale, np.float32)
    safe = np.where(scale == 0, 1, scale.astype(np.float64))
    values = np.rint(bias.astype(np.float64) / safe)
    return np.clip(values, -(2.0**31), 2.0**31 - 1).astype(np.int32), scale


def activation_scale(low: float, high: float, dtype: np.dtype) -> Scale:
    """Scale and zero point of the range [low, high] with 0 in it, as uint8 or int8."""
    first, last = np.iinfo(dtype).min, np.iinfo(dtype).max
    low, high = min(float(np.float32(low)), 0.0), max(float(np.float32(high)), 0.0)
    scale = (high - low) / (last - first)
    if scale < _TINY:
        return Scale(np.float32(1), dtype.type(0))
    return Scale(np.float32(scale), dtype.type(np.rint(first - low / scale)))


def quantize_table(array: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, Scale]:
    """A constant as an activation would be quantized, by its own range."""
    scale = activation_scale(float(array.min()), float(array.max()), dtype)
    values = np.rint(array / scale.scale) + float(scale.zero_point)
    limits = np.iinfo(dtype)
    return np.clip(values, limits.min, limits.max).astype(dtype), scale


def _others(axis: int | None, rank: int) -> tuple[int, ...]:
    return tuple(place for place in range(rank) if place != axis)


def _along(scale: np.ndarray, axis: int | None, rank: int) -> np.ndarray:
    """The scales shaped so that they multiply along their axis."""
    if axis is None:
        return scale
    return scale.reshape([-1 if place == axis else 1 for place in range(rank)])
