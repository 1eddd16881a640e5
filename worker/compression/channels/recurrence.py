"""Recurrent layers as linear maps: gates read the input by one weight, the state by another."""

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.compression.channels.groups import Cut, Structure
from worker.compression.channels.layers import Layer
from worker.compression.channels.trace import Shape


@dataclass(frozen=True)
class RecurrentLayer(Layer):
    """One weight of an LSTM, GRU or RNN: (directions, gates, inputs).

    `half` of the bias belongs to it: 0 for the input's weight, 1 for the state's. What the
    gates get is nonlinear in neither, so that each is fitted to what it gave in the original.
    """

    half: int

    def matrix(self, weight: np.ndarray) -> np.ndarray:
        return np.swapaxes(weight, 1, 2)

    def restored(self, matrix: np.ndarray, like: np.ndarray) -> np.ndarray:
        return np.swapaxes(matrix, 1, 2)

    def row_labels(self, structure: Structure) -> np.ndarray:
        return structure.axes[self.weight][self.sum_axis]

    def kept_columns(self, structure: Structure, cut: Cut) -> np.ndarray:
        return structure.kept(self.weight, 1, cut)

    def positions(self, x: Shape, target: Shape) -> int:
        return math.prod(x[:-1]) // (self.groups if self.half else 1)

    def inputs_at(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        if not self.half:
            rows = x.reshape(-1, x.shape[-1])[positions]
            return np.repeat(np.expand_dims(rows, 1), self.groups, axis=1)
        # States are (time, directions, batch, units): what one step leaves, the next one reads.
        states = np.moveaxis(x, 1, 2).reshape(-1, self.groups, x.shape[-1])
        made: np.ndarray = states[positions]
        return made

    def passed_on(self, lost: np.ndarray, weight: np.ndarray) -> np.ndarray:
        made: np.ndarray = np.einsum("gk,gkn->gn", lost, self.matrix(weight))
        return made

    def biased(self, bias: np.ndarray, shift: np.ndarray) -> np.ndarray:
        halves = bias.astype(np.float64).reshape(self.groups, 2, -1)
        halves[:, self.half] += shift.reshape(self.groups, -1)
        made: np.ndarray = halves.reshape(bias.shape).astype(bias.dtype)
        return made


def recurrent_layer(node: ir.Node, weight: str) -> RecurrentLayer | None:
    """The map of one weight of the node; None where it is not linear, or its input unseen."""
    state = node.inputs[2] is not None and node.inputs[2].name == weight
    x = node.outputs[0] if state else node.inputs[0]
    if x is None or not x.name or node.attributes.get_int("layout", 0) != 0:
        return None
    if state and _resets_first(node):
        return None
    bias = node.inputs[3] if len(node.inputs) > 3 else None
    if bias is not None and (bias.const_value is None or len(list(bias.uses())) > 1):
        bias = None
    direction = node.attributes.get_string("direction", "forward")
    return RecurrentLayer(
        node=node.name or "",
        op=node.op_type,
        x=x.name,
        target=x.name,
        weight=weight,
        sum_axis=2,
        bias=None if bias is None else bias.name,
        takes_bias=bias is not None,
        shortcut=None,
        groups=2 if direction == "bidirectional" else 1,
        mode="channel" if state else "gates",
        window=None,
        half=int(state),
    )


def _resets_first(node: ir.Node) -> bool:
    """Whether a GRU multiplies the state by its gate before the weight reads it."""
    before = node.attributes.get_int("linear_before_reset", 0) == 0
    return node.op_type == "GRU" and before
