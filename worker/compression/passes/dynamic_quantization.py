"""Dynamic int8 quantization: int8 weights, and activations scaled while the model runs.

It needs no samples and keeps the range of each input, at the price of finding it every time.
"""

import warnings
from typing import Literal

import onnx_ir as ir
from pydantic import Field, field_validator

from worker.compression import graph
from worker.compression.errors import CompressionWarning
from worker.compression.passes.base import Context, Pass
from worker.compression.precision import store_halves
from worker.compression.quantization import (
    DYNAMIC_OPS,
    FAST_DYNAMIC_OPS,
    DynamicOptions,
    Outcome,
    insert_dynamic,
    prepare_dynamic,
)


class DynamicQuantization(Pass):
    """Make matrix products and LSTMs int8, with activations scaled as they come."""

    method: Literal["dynamic_quantization"] = "dynamic_quantization"
    weights: Literal["auto", "int8", "int7"] = Field(
        default="auto",
        description="Type of weights; int7 cannot saturate on CPUs without VNNI. auto is int8, "
        "and int7 where the target is x86-avx2.",
    )
    per_channel: bool = Field(
        default=True,
        description="One scale for each output channel of a weight.",
    )
    ops: list[str] = Field(
        default=list(FAST_DYNAMIC_OPS),
        min_length=1,
        description="Operators that may become int8. Conv has to be asked for: its dynamic "
        "kernel is several times slower than floats.",
    )
    keep_float: list[str] = Field(
        default=[],
        description="Nodes that stay float: node names, module paths, wildcards.",
    )

    @field_validator("ops")
    @classmethod
    def _known(cls, ops: list[str]) -> list[str]:
        unknown = sorted(set(ops) - set(DYNAMIC_OPS))
        if unknown:
            raise ValueError(
                f"no dynamic int8 kernel for {', '.join(unknown)}; there are "
                f"{', '.join(DYNAMIC_OPS)}"
            )
        return ops

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        context.progress(0, "preparing the graph")
        model, widened = prepare_dynamic(model)
        nodes = list(model.graph.all_nodes())
        narrow = self.weights == "int7" or (
            self.weights == "auto" and context.target.cpu == "x86-avx2"
        )
        options = DynamicOptions(
            ops=self.ops,
            keep_float=set(graph.select_nodes(nodes, self.keep_float)),
            bits=7 if narrow else 8,
            per_channel=self.per_channel,
        )
        context.progress(0.3, "writing int8 weights")
        outcome = insert_dynamic(model, options)
        if widened:
            store_halves(model)
        _tell(model, outcome)
        return model


def _tell(model: ir.Model, outcome: Outcome) -> None:
    """Keep the reasons with the model; warn of what was int8 before, and if nothing is now."""
    for name in outcome.made:
        graph.settle(model, name)
    for name, reason in outcome.reasons.items():
        graph.note(model, name, reason)
    if outcome.quantized_before:
        warnings.warn(
            CompressionWarning(
                f"the model was quantized in part already; its {outcome.quantized_before} "
                "quantization nodes and their layers were left as they are",
                code="already_quantized",
            ),
            stacklevel=3,
        )
    if not outcome.made:
        reasons = sorted(set(outcome.reasons.values())) or ["it has no MatMul, Gemm or LSTM"]
        warnings.warn(
            CompressionWarning(
                f"nothing was quantized: {'; '.join(reasons[:3])}", code="nothing_quantized"
            ),
            stacklevel=3,
        )
