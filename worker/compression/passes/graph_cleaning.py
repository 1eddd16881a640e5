"""Graph cleaning as a pass: same function, fewer nodes."""

from typing import Literal

import onnx_ir as ir

from worker.compression import graph
from worker.compression.cleaning import clean
from worker.compression.passes.base import Context, Pass

# Enough to notice a step that breaks the model, few enough for large ones.
_FEEDS = 2


class GraphCleaning(Pass):
    """Fold constants and BatchNorm, drop what does nothing, raise the opset."""

    method: Literal["graph_cleaning"] = "graph_cleaning"

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        given = context.workdir / "uncleaned.onnx"
        graph.save(model, given)
        feeds = [
            context.calibration[index] for index in range(len(context.calibration))[:_FEEDS]
        ]
        cleaning = clean(
            given,
            context.workdir / "cleaned.onnx",
            feeds=feeds,
            progress=context.progress,
        )
        graph.remove(given)
        return graph.load(cleaning.path)
