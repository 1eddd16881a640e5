"""Channels behind LayerNorm brought closer, so that one int8 scale fits them all."""

import warnings
from typing import Annotated, Literal

import onnx_ir as ir
from pydantic import Field

from worker.compression.equalization import Group, equalize
from worker.compression.errors import CompressionWarning
from worker.compression.passes.base import Context, Pass

_IMAGES = {"Conv", "BatchNormalization"}


class SmoothQuantization(Pass):
    """Move the spread of activations into weights, before MatMul and Gemm (SmoothQuant)."""

    method: Literal["smooth_quantization"] = "smooth_quantization"
    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        default="auto",
        description="Share of the spread that weights take over, from 0 to 1; auto is the one "
        "that lets int8 lose least, chosen for each tensor. Usual is 0.5.",
    )

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        context.progress(0, "bringing channels closer")
        found = equalize(
            model,
            _before_products,
            context.calibration,
            context.workdir,
            alpha=None if self.alpha == "auto" else self.alpha,
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


def _before_products(group: Group) -> bool:
    """Whether MatMul and Gemm alone read a group, and no convolution makes it."""
    reads = {one.node.op_type for one in group.readers}
    return "Conv" not in reads and not group.makes & _IMAGES
