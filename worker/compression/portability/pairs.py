"""Pairs of products that do not fit 16 bits.

Without VNNI, ONNX Runtime's kernels for uint8 activations and int8 weights use VPMADDUBSW: two
neighbouring products are added in an int16 that saturates, before anything is added in 32 bits
(core/mlas, GemmU8S8 for AVX2 and AVX512). VNNI adds all products in 32 bits.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.int8]
Column = Callable[[int], npt.NDArray[np.uint8]]

LOWEST, HIGHEST = -(2**15), 2**15 - 1
_LARGEST_ACTIVATION = 255
_LARGEST_WEIGHT = 128
# Sums that are held at once.
_CHUNK = 1 << 22


def safe(weight: Matrix) -> bool:
    """Whether no activations at all can saturate a pair; `weight` is (inputs, outputs)."""
    largest = np.full(len(weight), _LARGEST_ACTIVATION, np.int32)
    return not len(_suspects(weight, largest)[0])


def count_saturated(weight: Matrix, column: Column, largest: npt.NDArray[np.int32]) -> int:
    """Outputs with a pair that saturates, over all rows of activations. Exact.

    `column` gives the activations of one input, by row; `largest` their maximum by input.
    """
    places, outputs = _suspects(weight, largest)
    if not len(places):
        return 0
    saturated: npt.NDArray[np.bool_] | None = None
    each, firsts = np.unique(places, return_index=True)  # they come in order
    for place, suspects in zip(each, np.split(outputs, firsts[1:]), strict=True):
        first = column(2 * place).astype(np.int32)
        odd = 2 * place + 1 == len(weight)
        second = np.zeros_like(first) if odd else column(2 * place + 1).astype(np.int32)
        if saturated is None:
            saturated = np.zeros((len(first), weight.shape[1]), np.bool_)
        factors = weight[2 * place : 2 * place + 2, suspects].astype(np.int32)
        rows = np.flatnonzero((first + second) * _LARGEST_WEIGHT > HIGHEST)
        width = max(1, _CHUNK // len(suspects))
        for start in range(0, len(rows), width):
            some = rows[start : start + width]
            sums = first[some, None] * factors[0]
            if not odd:
                sums += second[some, None] * factors[1]
            saturated[np.ix_(some, suspects)] |= (sums > HIGHEST) | (sums < LOWEST)
    return 0 if saturated is None else int(saturated.sum())


def _suspects(
    weight: Matrix, largest: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Pairs and outputs that activations up to `largest` could saturate."""
    if len(weight) % 2:
        weight = np.vstack([weight, np.zeros((1, weight.shape[1]), np.int8)])
        largest = np.append(largest, 0).astype(np.int32)
    places: list[npt.NDArray[np.intp]] = []
    outputs: list[npt.NDArray[np.intp]] = []
    width = max(2, _CHUNK // max(weight.shape[1], 1) // 2 * 2)
    for start in range(0, len(weight), width):
        part = weight[start : start + width].astype(np.int32)
        bound = largest[start : start + width, None]
        up, down = np.maximum(part, 0) * bound, np.minimum(part, 0) * bound
        beyond = (up[::2] + up[1::2] > HIGHEST) | (down[::2] + down[1::2] < LOWEST)
        found = np.nonzero(beyond)
        places.append(found[0] + start // 2)
        outputs.append(found[1])
    if not places:
        empty = np.empty(0, np.intp)
        return empty, empty
    return np.concatenate(places), np.concatenate(outputs)
