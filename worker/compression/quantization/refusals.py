"""Why a node stays float: from the graph alone, and from what the calibration saw."""

import math
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.compression.graph import constant
from worker.compression.quantization.operators import (
    ABSORBED,
    COMPUTE,
    JOINS,
    LOOKUP,
    QUANTIZED,
    SAME_SCALE,
    absorbed,
    data_inputs,
)
from worker.compression.ranges import Observed

# Joined tensors whose ranges differ by more keep their own scale, in float.
_CONCAT_RATIO = 10
_SUM_RATIO = 64
# Larger values are masks, not signal.
_MASK = 1e6
# Layers that only other methods make smaller.
_STORED = (
    "ONNX Runtime has no int8 kernel for {}; weight_quantization stores its weights in int8"
)
_ELSEWHERE = {
    "LSTM": "ONNX Runtime has no int8 kernel for LSTM with fixed ranges; dynamic_quantization "
    "makes it int8",
    **{op: _STORED.format(op) for op in ("GRU", "RNN", "ConvTranspose")},
}
# A lookup table below this is not worth a scale.
_TABLE_SIZE = 1024


@dataclass(frozen=True)
class Wanted:
    """What was asked for, and what the graph forbids."""

    ops: Sequence[str]
    keep_float: Set[ir.Node]
    float_outputs: Collection[str]
    captured: Set[ir.Value]
    observed: Mapping[str, Observed] | None

    def makes_int8(self, node: ir.Node) -> bool:
        return node.op_type not in self.float_outputs


def refusal(node: ir.Node, wanted: Wanted, inside: Set[ir.Value]) -> str | None:
    """Why a node cannot be int8; `inside` are the int8 tensors so far."""
    reason = _graph_refusal(node, wanted, inside)
    if reason is None and wanted.observed is not None:
        return _range_refusal(node, wanted, wanted.observed, inside)
    return reason


def _graph_refusal(node: ir.Node, wanted: Wanted, inside: Set[ir.Value]) -> str | None:
    asked = node.op_type in wanted.ops or _follows(node, inside)
    if not asked or node.domain not in ("", "ai.onnx"):
        return _ELSEWHERE.get(node.op_type) or (
            f"{node.op_type} is not among the operators to quantize"
        )
    if node in wanted.keep_float:
        return "kept float as asked"
    if touches_quantized(node):
        return "quantized already"
    if wanted.makes_int8(node) and wanted.captured & set(node.outputs):
        # With a second reader of its float output, no int8 kernel takes it.
        return "a body of If or Loop reads its output"
    if node.op_type in ABSORBED and node.inputs[0] in wanted.captured:
        return "a body of If or Loop reads its input"
    if node.op_type in COMPUTE:
        return _compute_refusal(node)
    if node.op_type in LOOKUP:
        return _lookup_refusal(node)
    return _region_refusal(node, inside)


def _follows(node: ir.Node, inside: Set[ir.Value]) -> bool:
    """Whether a Relu or Clip can vanish in the int8 layer before it, which costs nothing."""
    return node.op_type in ABSORBED and node.inputs[0] in inside and bool(absorbed([node]))


def _compute_refusal(node: ir.Node) -> str | None:
    constants = [constant(value) for value in node.inputs]
    if all(tensor is not None for tensor in constants[:2]):
        return "both inputs are constant"
    if any(t is not None and t.dtype != ir.DataType.FLOAT for t in constants[:2]):
        return "its weight is not float32"
    if any(tensor is not None and tensor.size == 0 for tensor in constants):
        return "its weight is empty"
    if node.op_type == "MatMul":
        return None
    if constants[1] is None:
        return "its weight is computed, not constant"
    if node.op_type == "Gemm":
        return _gemm_refusal(node, constants)
    if len(constants) > 2 and node.inputs[2] is not None and constants[2] is None:
        return "its bias is computed, not constant"
    return None


def _gemm_refusal(node: ir.Node, constants: Sequence[ir.TensorProtocol | None]) -> str | None:
    alpha = node.attributes.get_float("alpha", 1.0)
    beta = node.attributes.get_float("beta", 1.0)
    if alpha != 1.0 or beta != 1.0:
        return "its alpha or beta is not 1"
    bias = constants[2] if len(constants) > 2 else None
    if len(constants) < 3 or node.inputs[2] is None:
        return None
    weight = constants[1]
    if bias is None or weight is None:
        return "its bias is computed, not constant"
    channels = weight.shape[0 if node.attributes.get_int("transB", 0) else 1]
    if bias.size != channels or bias.shape.numpy()[-1:] != (channels,):
        return "its bias is not one value for each channel"
    return None


def _lookup_refusal(node: ir.Node) -> str | None:
    table = constant(node.inputs[0])
    if table is None or table.dtype != ir.DataType.FLOAT or table.size < _TABLE_SIZE:
        return "no large table of float32"
    return None


def _region_refusal(node: ir.Node, inside: Set[ir.Value]) -> str | None:
    read = node.inputs if node.op_type in JOINS else node.inputs[:1]
    if any(value not in inside for value in read):
        return "its inputs are not int8"
    if not _clips_around_zero(node):
        return "its limits exclude zero"
    if node.op_type == "MaxPool" and len(node.outputs) > 1:
        return "its indices are asked for"
    return None


def _vanishes(node: ir.Node, wanted: Wanted) -> bool:
    return node not in wanted.keep_float and _clips_around_zero(node)


def _clips_around_zero(node: ir.Node) -> bool:
    """Whether dropping a Clip in favour of a range, which always includes zero, is right."""
    if node.op_type != "Clip":
        return True
    limits = [constant(value) for value in node.inputs[1:3]]
    if any(
        limit is None and value is not None
        for limit, value in zip(limits, node.inputs[1:3], strict=True)
    ):
        return False
    low = float(limits[0].numpy().item()) if limits and limits[0] is not None else -1.0
    high = float(limits[1].numpy().item()) if len(limits) > 1 and limits[1] is not None else 1.0
    return low <= 0 <= high


def _range_refusal(
    node: ir.Node, wanted: Wanted, observed: Mapping[str, Observed], inside: Set[ir.Value]
) -> str | None:
    read = [node.inputs[index] for index in data_inputs(node)]
    values = [value for value in read if value is not None and constant(value) is None]
    if not all(_is_finite(value) for value in node.inputs):
        return "its weight or bias holds infinite values or NaN"
    if node.op_type in JOINS:
        reason = _join_refusal(node, [observed.get(value.name or "") for value in values])
        if reason:
            return reason
    if wanted.makes_int8(node) and node.op_type not in SAME_SCALE:
        values += node.outputs
    users = [user for value in values for user in value.consumers()]
    behind = [user for user in absorbed(users) if _vanishes(user, wanted)]
    replaced = {user.inputs[0]: user.outputs[0] for user in behind}
    for value in values:
        name = value.name or ""
        seen = observed.get(name) or observed.get(replaced.get(value, value).name or "")
        producer = value.producer()
        if value in inside and producer is not None and producer.op_type in SAME_SCALE:
            continue
        if seen is None:
            return "no sample gave it float32 values"
        if not seen.finite or max(abs(seen.minimum), abs(seen.maximum)) > _MASK:
            return f"{name} holds infinite or huge values"
    return None


def _is_finite(value: ir.Value | None) -> bool:
    tensor = constant(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return True
    # A sum is infinite or NaN if a term is; of float32, it cannot overflow a float64.
    return math.isfinite(tensor.numpy().sum(dtype=np.float64))


def _join_refusal(node: ir.Node, seen: Sequence[Observed | None]) -> str | None:
    spans = [max(abs(one.minimum), abs(one.maximum)) for one in seen if one is not None]
    if any(not one.finite for one in seen if one is not None) or max(spans, default=0) > _MASK:
        return "it joins infinite or huge values"
    if any(one.minimum == one.maximum for one in seen if one is not None):
        return "one of its inputs was constant over all samples"
    ratio = _CONCAT_RATIO if node.op_type == "Concat" else _SUM_RATIO
    if node.op_type != "Mul" and len(spans) > 1 and max(spans) > ratio * min(spans):
        return f"the ranges of its inputs differ by more than {ratio}x"
    return None


def touches_quantized(node: ir.Node) -> bool:
    before = [value.producer() for value in node.inputs if value is not None]
    after = [user for value in node.outputs for user in value.consumers()]
    return any(other is not None and other.op_type in QUANTIZED for other in (*before, *after))
