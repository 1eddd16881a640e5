"""Channels between convolutions brought to one range, so that one int8 scale fits them all."""

import warnings
from typing import Literal

import onnx_ir as ir

from worker.compression.equalization import Group, equalize
from worker.compression.errors import CompressionWarning
from worker.compression.passes.base import Context, Pass

_MADE_BY = {"Conv", "BatchNormalization"}


class CrossLayerEqualization(Pass):
    """Scale the channels between convolutions to one range; what the model computes stays."""

    method: Literal["cross_layer_equalization"] = "cross_layer_equalization"

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        context.progress(0, "bringing channels to one range")
        found = equalize(
            model,
            _between_convolutions,
            context.calibration,
            context.workdir,
            threads=context.target.threads,
        )
        if not found.scaled:
            warnings.warn(
                CompressionWarning(
                    f"channels were left as they are: {found.reason}", code="nothing_scaled"
                ),
                stacklevel=2,
            )
        return found.model


def _between_convolutions(group: Group) -> bool:
    return bool(group.makes & _MADE_BY)  # without a maker it would take a Mul
