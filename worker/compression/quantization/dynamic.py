"""Dynamic int8: weights rounded once, activations scaled as they come. No samples are needed.

What is written is what ONNX Runtime (seen in 1.32) fuses into one kernel: from
DynamicQuantizeLinear, MatMulInteger, Cast and Mul, and a bias behind them, it makes
DynamicQuantizeMatMul.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from worker.compression import graph
from worker.compression.quantization.halves import widen
from worker.compression.quantization.operators import LAYERS, QUANTIZED
from worker.compression.quantization.preparation import raised
from worker.compression.quantization.products import Product, product_of
from worker.compression.quantization.recurrent import Recurrence, recurrence_of
from worker.compression.quantization.refusals import touches_quantized
from worker.compression.quantization.steps import Steps

DYNAMIC_OPS = ("MatMul", "Gemm", "LSTM", "Conv")
"""Operators with a dynamic kernel; that of Conv is several times slower than floats."""
FAST_DYNAMIC_OPS = ("MatMul", "Gemm", "LSTM")

# DynamicQuantizeLinear
_OLDEST_OPSET = 11
_NO_KERNEL = "ONNX Runtime has no dynamic int8 kernel for {}"
_SLOW = (
    "ONNX Runtime's dynamic int8 kernel for Conv is several times slower than floats; "
    "static_quantization has a fast one"
)


@dataclass(frozen=True)
class DynamicOptions:
    """What becomes int8, and how weights are rounded."""

    ops: Sequence[str]
    keep_float: Set[ir.Node] = frozenset()
    bits: int = 8
    per_channel: bool = True


@dataclass
class Outcome:
    """Layers that became int8 by name, the reasons of the others, what was quantized before."""

    made: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    quantized_before: int = 0


def prepare_dynamic(model: ir.Model) -> tuple[ir.Model, bool]:
    """The model with an operator set for dynamic int8; and whether half floats were widened.

    Raises:
        PassFailed: its operator set is too old and cannot be raised.
    """
    model = raised(model, _OLDEST_OPSET)
    graph.name_nodes(model)
    return model, widen(model)


def insert_dynamic(model: ir.Model, options: DynamicOptions) -> Outcome:
    """Make layers int8, in bodies of If and Loop too; the prepared model is changed."""
    outcome = Outcome()
    steps = Steps(model, bits=options.bits, per_channel=options.per_channel)
    opset = graph.opset(model)
    for node in list(model.graph.all_nodes()):
        if node.op_type in QUANTIZED:
            outcome.quantized_before += 1
        if node.op_type not in LAYERS or node.domain not in ("", "ai.onnx"):
            continue
        found = _layer(node, options, opset)
        name = node.name or ""
        if isinstance(found, str):
            outcome.reasons[name] = found
            continue
        found.write(steps)
        outcome.made.append(name)
    _remove_unread(model)
    return outcome


def _remove_unread(model: ir.Model) -> None:
    """Drop what only the float layers read; in bodies, onnx_ir keeps initializers."""
    common.RemoveUnusedNodesPass()(model)
    for part in model.graphs():
        for name, value in list(part.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del part.initializers[name]


def _layer(node: ir.Node, options: DynamicOptions, opset: int) -> Product | Recurrence | str:
    """The layer as it can be written in int8, or why it stays float."""
    if node.op_type not in options.ops:
        return _unasked(node.op_type)
    if node in options.keep_float:
        return "kept float as asked"
    if touches_quantized(node):
        return "quantized already"
    read = recurrence_of if node.op_type == "LSTM" else product_of
    found = read(node, opset)
    if not isinstance(found, str) and not all(np.isfinite(w).all() for w in found.weights):
        return "its weight holds infinite values or NaN"
    return found


def _unasked(op: str) -> str:
    if op not in DYNAMIC_OPS:
        return _NO_KERNEL.format(op)
    return _SLOW if op == "Conv" else f"{op} is not among the operators to quantize"
