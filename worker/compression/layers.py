"""Blame and price of every weight-carrying layer: what it became, and the time it saves."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.benchmark import profile
from worker.compression.report import Layer, LayerCost

# Operators that hold a weight, as they are and as they become, with the input it stands at.
_WEIGHT_AT = {
    **{op: inputs[0] for op, inputs in graph.WEIGHT_INPUTS.items()},
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "MatMulIntegerToFloat": 1,
    "DynamicQuantizeMatMul": 1,
    "DynamicQuantizeLSTM": 1,
    "MatMulNBits": 1,
}
_OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1, "QLinearConv": 0, "ConvInteger": 0}
_THROUGH = ("DequantizeLinear", *graph.PASSED_THROUGH)


@dataclass(frozen=True)
class _Held:
    """A node with its weight tensor, in one of the two models."""

    node: ir.Node
    weight: str
    tensor: ir.TensorProtocol


def blame(
    original: Path, result: Path, feed: Mapping[str, np.ndarray], notes: Mapping[str, str]
) -> list[Layer]:
    """One row for each layer of the original; matched by node name, else by its weight's name.

    Milliseconds are those of ONNX Runtime's own profile of one thread, so fused work counts for
    the layer it was fused into. `notes` says by node name why a layer was left alone.
    """
    before, after = _held(graph.load(original)), _held(graph.load(result))
    by_name = {held.node.name: held for held in after if held.node.name}
    by_weight = {held.weight: held for held in after}
    costs = _costs(original, feed), _costs(result, feed)
    return [
        _row(one, by_name.get(one.node.name or "") or by_weight.get(one.weight), costs, notes)
        for one in before
    ]


def _held(model: ir.Model) -> list[_Held]:
    graph.name_nodes(model)
    found = []
    for node in model.graph.all_nodes():
        index = _WEIGHT_AT.get(node.op_type)
        if index is None or index >= len(node.inputs):
            continue
        value = _behind(node.inputs[index])
        tensor = graph.constant(value)
        if value is not None and tensor is not None:
            name = (value.name or "").removesuffix("_quantized")
            found.append(_Held(node, name, tensor))
    return found


def _behind(value: ir.Value | None) -> ir.Value | None:
    """The constant that a value is made of."""
    while value is not None and graph.constant(value) is None:
        node = value.producer()
        if node is None or node.op_type not in _THROUGH:
            return None
        value = node.inputs[0]
    return value


def _costs(path: Path, feed: Mapping[str, np.ndarray]) -> dict[str, tuple[str, float]]:
    """Kernel and milliseconds by node name."""
    return {kernel.node: (kernel.provider_op, kernel.ms) for kernel in profile(path, feed)}


def _row(
    one: _Held,
    became: _Held | None,
    costs: tuple[dict[str, tuple[str, float]], dict[str, tuple[str, float]]],
    notes: Mapping[str, str],
) -> Layer:
    name = one.node.name or one.weight
    before = _cost(one, costs[0])
    after = _cost(became, costs[1]) if became else None
    return Layer(
        name=name,
        op=one.node.op_type,
        before=before,
        after=after,
        precision=_precision(became or one),
        sparsity=_sparsity(became or one),
        channels=_channels(one, became),
        sqnr_db=None,
        saved_ms=_saved(before, after),
        reason=notes.get(name) or (None if became else "merged into another layer"),
    )


def _cost(held: _Held, costs: Mapping[str, tuple[str, float]]) -> LayerCost:
    kernel, ms = costs.get(held.node.name or "", (None, None))
    return LayerCost(kernel=kernel, bytes=held.tensor.nbytes, ms=ms)


def _saved(before: LayerCost, after: LayerCost | None) -> float | None:
    if after is None or before.ms is None or after.ms is None:
        return None
    return round(before.ms - after.ms, 6)


def _precision(held: _Held) -> str:
    return held.tensor.dtype.numpy().name


def _sparsity(held: _Held) -> float:
    """Share of weights that are zero; a quantized weight's zero is its zero point."""
    values = held.tensor.numpy()
    zero = 128 if values.dtype == np.uint8 else 0
    return round(1 - np.count_nonzero(values != zero) / max(values.size, 1), 6)


def _channels(one: _Held, became: _Held | None) -> tuple[int, int] | None:
    axis = _OUTPUT_AXIS.get(one.node.op_type)
    if axis is None or became is None:
        return None
    before, after = one.tensor.shape.numpy(), became.tensor.shape.numpy()
    return (before[axis], after[axis]) if len(before) == len(after) else None
