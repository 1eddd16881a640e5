"""Blame and price of every weight-carrying layer: what it became, and the time it saves."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.benchmark import profile
from worker.compression.calibration import CalibrationSet, Feed
from worker.compression.cleaning import shapes_inferred
from worker.compression.report import Layer, LayerCost
from worker.compression.sensitivity import result_twin, twin_sqnr

# Operators that hold a weight, as they are and as they become, with the input it stands at.
_WEIGHT_AT = {
    **{op: inputs[0] for op, inputs in graph.WEIGHT_INPUTS.items()},
    "FusedConv": 1,
    "FusedGemm": 1,
    "FusedMatMul": 1,
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
_OUTPUT_AXIS = {
    "Conv": 0,
    "FusedConv": 0,
    "ConvTranspose": 1,
    "QLinearConv": 0,
    "ConvInteger": 0,
}
# Samples over which the error of layers is taken.
_SAMPLES = 16
# Above this the difference is the rounding of float32 in another order.
_ROUNDING_DB = 100
# Mul, Slice and Gather: how weights stored in fewer bits are given back.
_THROUGH = ("DequantizeLinear", "Mul", "Slice", "Gather", *graph.PASSED_THROUGH)


@dataclass(frozen=True, eq=False)
class _Held:
    """A node with its weight tensor, in one of the two models."""

    node: ir.Node
    weight: str
    tensor: ir.TensorProtocol

    @property
    def name(self) -> str:
        """The node's name, without what quantizers append."""
        return (self.node.name or "").removesuffix("_quant")


def blame(
    original: Path,
    result: Path,
    samples: CalibrationSet,
    *,
    feed: Feed,
    notes: Mapping[str, str],
) -> list[Layer]:
    """One row for each layer of the original; matched by node name, else by its weight's name.

    Milliseconds are those of ONNX Runtime's own profile of one thread on `feed`, so fused work
    counts for the layer it was fused into. The error is the layer's own, over `samples`; None
    where it adds none, or where the layer cannot be told from its neighbours. `notes` says by
    node name why a layer was left alone.
    """
    models = graph.load(original), shapes_inferred(graph.load(result))
    before, after = _held(models[0]), _held(models[1])
    pairs = _pairs(before, after)
    errors = {} if original == result else _errors(original, pairs, models[0], samples)
    costs = _costs(original, feed), _costs(result, feed)
    return [_row(one, became, costs, notes, errors) for one, became in pairs]


def errors(original: Path, result: Path, samples: CalibrationSet) -> dict[str, float]:
    """SQNR in dB of each layer's own error, by its node name in the original."""
    models = graph.load(original), shapes_inferred(graph.load(result))
    pairs = _pairs(_held(models[0]), _held(models[1]))
    return _errors(original, pairs, models[0], samples)


def _pairs(before: Sequence[_Held], after: Sequence[_Held]) -> list[tuple[_Held, _Held | None]]:
    """Each layer with what it became; None where it is gone."""
    by_name = {held.name: held for held in after}
    shared = Counter(held.weight for held in (*before, *after))
    by_weight = {held.weight: held for held in after if shared[held.weight] <= 2}
    known = [by_name.get(one.name) or by_weight.get(one.weight) for one in before]
    # Folding renames a weight and sometimes its node; the order of like layers it keeps.
    lost = [one for one, became in zip(before, known, strict=True) if became is None]
    new = [held for held in after if held not in known]
    same = [_like(one) for one in lost] == [_like(held) for held in new]
    renamed = dict(zip(lost, new, strict=True)) if same else {}
    return [
        (one, became or renamed.get(one)) for one, became in zip(before, known, strict=True)
    ]


def _like(held: _Held) -> tuple[str, Sequence[int]]:
    return held.node.op_type, held.tensor.shape.numpy()


def _errors(
    original: Path,
    pairs: Sequence[tuple[_Held, _Held | None]],
    model: ir.Model,
    samples: CalibrationSet,
) -> dict[str, float]:
    """SQNR in dB of the layers that add an error, by node name."""
    made = (value.name for node in model.graph for value in node.outputs)
    tensors = {name for name in (*made, *(value.name for value in model.graph.inputs)) if name}
    twins = [result_twin(one.node, became.node, tensors) for one, became in pairs if became]
    told = [twin for twin in twins if twin is not None]
    found = twin_sqnr(original, told, samples[:_SAMPLES])
    return {name: sqnr for name, sqnr in found.items() if sqnr < _ROUNDING_DB}


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
        # Four bits are looked up in a table of what they stand for.
        value = node.inputs[1 if node.op_type == "Gather" else 0]
    return value


def _costs(path: Path, feed: Feed) -> dict[str, tuple[str, float]]:
    """Kernel and milliseconds by node name."""
    return {kernel.node: (kernel.provider_op, kernel.ms) for kernel in profile(path, feed)}


def _row(
    one: _Held,
    became: _Held | None,
    costs: tuple[dict[str, tuple[str, float]], dict[str, tuple[str, float]]],
    notes: Mapping[str, str],
    errors: Mapping[str, float],
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
        sqnr_db=None if name not in errors else round(errors[name], 2),
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
