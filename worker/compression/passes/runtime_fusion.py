"""Runtime fusion: the graph as ONNX Runtime's own optimizer fuses it, saved.

Level ORT_ENABLE_EXTENDED: the level above it writes layouts of the CPU that it ran on.
"""

import warnings
from typing import Literal

import onnx_ir as ir
import onnxruntime as ort

from worker.compression import graph
from worker.compression.errors import CompressionWarning, PassFailed
from worker.compression.passes.base import Context, Pass


class RuntimeFusion(Pass):
    """Save ONNX Runtime's own fused graph: for ONNX Runtime alone, of this version or later."""

    method: Literal["runtime_fusion"] = "runtime_fusion"

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        if graph.weight_bytes(model) > graph.SINGLE_FILE_BYTES:
            raise PassFailed(
                "runtime_fusion writes one file, which this model is too large for",
                hint="leave this method out of the recipe",
            )
        given, fused = context.workdir / "unfused.onnx", context.workdir / "fused.onnx"
        graph.save(model, given)
        context.progress(0.2, "ONNX Runtime fuses the graph")
        graph.write_optimized(
            given, fused, level=ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        )
        graph.remove(given)
        found = graph.load(fused)
        _say_what_it_needs(found)
        return found


def _say_what_it_needs(model: ir.Model) -> None:
    """Drop the operator sets that nothing uses; warn of those that no other runtime has."""
    used = {node.domain for node in model.graph.all_nodes()}
    for domain in [one for one in model.opset_imports if one and one not in used]:
        del model.opset_imports[domain]
    own = sorted({n.op_type for n in model.graph.all_nodes() if n.domain.startswith("com.")})
    if own:
        warnings.warn(
            CompressionWarning(
                f"only ONNX Runtime {ort.__version__} or later runs the result: it uses "
                f"{', '.join(own)}",
                code="onnxruntime_only",
            ),
            stacklevel=2,
        )
