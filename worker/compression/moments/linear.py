"""Conv, Gemm and MatMul seen alike: rows of inputs times a matrix, per group of a Conv."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.compression.moments.windows import Window, window


@dataclass(frozen=True)
class Linear:
    """A layer y = x W + b with a constant W that is an initializer of its own.

    `rows` and `matrix` lead with the groups of a Conv (1 elsewhere): (rows, groups, inputs)
    and (groups, inputs, outputs), with the inputs in the order channel, kernel position.
    """

    node: str
    x: str
    y: str
    weight: str
    groups: int
    shape: tuple[int, ...]
    transposed: bool
    window: Window | None

    @property
    def inputs(self) -> int:
        """Inputs of one output."""
        if self.window is not None:
            return math.prod(self.shape[1:])
        return self.shape[1] if self.transposed else self.shape[0]

    @property
    def channel_axis(self) -> int:
        """The axis of the weight, and of its scales, that counts output channels."""
        return 0 if self.window is not None or self.transposed else 1

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        """The weight as (groups, inputs, outputs), in float64."""
        if self.window is None:
            flat = weight.T if self.transposed else weight
            return flat[None].astype(np.float64)
        grouped = weight.reshape(self.groups, -1, self.inputs)
        return np.swapaxes(grouped, 1, 2).astype(np.float64)

    def weight_of(self, matrix: np.ndarray) -> np.ndarray:
        """The inverse of `matrix`, in the type of the matrix."""
        if self.window is None:
            return np.ascontiguousarray(matrix[0].T if self.transposed else matrix[0])
        return np.ascontiguousarray(np.swapaxes(matrix, 1, 2)).reshape(self.shape)

    def rows(self, x: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
        """At most `most` rows of inputs, drawn evenly, as (rows, groups, inputs)."""
        if self.window is not None:
            patches = self.window.patches(x, most, rng)
            return patches.reshape(len(patches), self.groups, self.inputs)
        flat = x.reshape(-1, 1, x.shape[-1])
        if len(flat) <= most:
            return flat.copy()
        return flat[np.sort(rng.choice(len(flat), most, replace=False))]


def linear_layers(nodes: Iterable[ir.Node]) -> list[Linear]:
    """The linear layers among nodes whose weight is an initializer of floats."""
    made = (_linear(node) for node in nodes)
    return [layer for layer in made if layer is not None]


def _linear(node: ir.Node) -> Linear | None:
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    x, weight = node.inputs[0], node.inputs[1]
    if x is None or weight is None or weight.const_value is None:
        return None
    shape = tuple(int(size) for size in weight.const_value.shape.numpy())
    if x.const_value is not None or math.prod(shape) == 0:
        return None
    convolves = node.op_type == "Conv"
    if not convolves and (len(shape) != 2 or node.attributes.get_int("transA", 0) != 0):
        return None
    return Linear(
        node=node.name or "",
        x=x.name or "",
        y=node.outputs[0].name or "",
        weight=weight.name or "",
        groups=node.attributes.get_int("group", 1) if convolves else 1,
        shape=shape,
        transposed=bool(node.attributes.get_int("transB", 0)),
        window=window(node, shape[2:]) if convolves else None,
    )
