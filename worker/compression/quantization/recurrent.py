"""LSTM by ONNX Runtime's DynamicQuantizeLSTM."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.compression.quantization.folding import folded
from worker.compression.quantization.steps import Steps

_INPUTS = 8  # of an LSTM, peepholes included; scales and zero points come behind them


@dataclass(frozen=True, eq=False)
class Recurrence:
    """An LSTM with its weights as the kernel reads them: (directions, inputs, 4 * units)."""

    node: ir.Node
    of_inputs: np.ndarray
    of_state: np.ndarray

    @property
    def weights(self) -> tuple[np.ndarray, ...]:
        return self.of_inputs, self.of_state

    def write(self, steps: Steps) -> None:
        node = self.node
        inputs: list[ir.Value | None] = [*node.inputs, *[None] * (_INPUTS - len(node.inputs))]
        for index, weight in zip((1, 2), self.weights, strict=True):
            read = node.inputs[index]
            name = read.name or "" if read is not None else ""
            rounded, scale = _by_direction(steps, name, weight)
            inputs[index] = rounded
            inputs += [
                steps.held(name, "_scale", scale),
                steps.held(name, "_zero_point", np.zeros(scale.shape, np.int8)),
            ]
        made = steps.contrib(node, "DynamicQuantizeLSTM", inputs, outputs=len(node.outputs))
        for old, new in zip(node.outputs, made.outputs, strict=True):
            new.name = old.name
        steps.replace(node, made.outputs)


def recurrence_of(node: ir.Node, opset: int) -> Recurrence | str:
    """An LSTM as integers can compute it, or why they cannot."""
    if node.attributes.get_int("layout", 0):
        return "its batch axis comes first, which the dynamic int8 kernel of LSTM cannot read"
    held = [folded(node.inputs[index], opset=opset) for index in (1, 2)]
    if held[0] is None or held[1] is None:
        return "its weight is computed, not constant"
    if any(weight is not None and weight.dtype != np.float32 for weight in held):
        return "its weight is not float32"
    return Recurrence(node, held[0].transpose(0, 2, 1), held[1].transpose(0, 2, 1))


def _by_direction(steps: Steps, name: str, weight: np.ndarray) -> tuple[ir.Value, np.ndarray]:
    """int8 weight, and scales (directions, 4 * units): every direction has its own."""
    directions, inputs, units = weight.shape
    columns = weight.transpose(1, 0, 2).reshape(inputs, directions * units)
    values, scale = steps.rounded(columns, 1)
    back = values.reshape(inputs, directions, units).transpose(1, 0, 2)
    scales = np.broadcast_to(scale, (directions * units,)).reshape(directions, units)
    return steps.held(name, "_quantized", np.ascontiguousarray(back)), scales
