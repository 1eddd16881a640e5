"""Other ways to store a weight, each with the standard operators that give it back.

ONNX Runtime computes operators on constants once, when it loads a model, in bodies of If and
Loop too; behind DequantizeLinear it does not (1.32): such a Conv loses its packed weights. So
int8 is decoded by Cast and Mul, which every operator set has, and runs as fast as float.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

# Value pairs by byte: the low half is the first of two neighbours.
PAIRS = np.stack([np.arange(256) % 16, np.arange(256) // 16], axis=1).astype(np.float32) - 8


class Encoding(Protocol):
    """A tensor in few bits."""

    @property
    def kind(self) -> str:
        """As in `precision` of the report: int8, int4, float16, int16."""
        ...

    @property
    def nbytes(self) -> int: ...

    def decoded(self) -> np.ndarray:
        """What the model computes with, float32."""
        ...


@dataclass(frozen=True, eq=False)
class Half:
    """float16, given back by Cast, and by Mul where it has scales."""

    values: np.ndarray
    scales: np.ndarray | None = None
    kind: str = "float16"

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def decoded(self) -> np.ndarray:
        values = self.values.astype(np.float32)
        return values if self.scales is None else values * self.scales


@dataclass(frozen=True, eq=False)
class Int8:
    """codes * scales, given back by Cast and Mul; codes of int16 too. `scales` broadcasts."""

    codes: np.ndarray
    scales: np.ndarray
    kind: str = "int8"

    @property
    def nbytes(self) -> int:
        return self.codes.nbytes + self.scales.nbytes

    def decoded(self) -> np.ndarray:
        decoded: np.ndarray = self.codes.astype(np.float32) * self.scales
        return decoded


@dataclass(frozen=True, eq=False)
class Int4:
    """Blocks of 4-bit values along each channel, two in a byte, given back by a lookup.

    `packed`: (channels, blocks, pairs); `scales`: (channels, blocks, 1, 1). `shape` is that of
    the tensor with its channels first, `order` the permutation from there to the tensor.
    """

    packed: np.ndarray
    scales: np.ndarray
    shape: tuple[int, ...]
    order: tuple[int, ...]
    kind: str = "int4"

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.scales.nbytes

    @cached_property
    def columns(self) -> int:
        """Values of a channel; what the last block holds beyond is padding."""
        return math.prod(self.shape[1:])

    @property
    def padded(self) -> bool:
        return self.columns != 2 * math.prod(self.packed.shape[1:])

    def decoded(self) -> np.ndarray:
        values = PAIRS[self.packed] * self.scales.astype(np.float32)
        rows = values.reshape(self.shape[0], -1)[:, : self.columns]
        decoded: np.ndarray = rows.reshape(self.shape).transpose(self.order)
        return decoded
