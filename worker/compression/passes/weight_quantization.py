"""Weight quantization: weights stored in 8 or 4 bits, computed with as floats.

The file shrinks; ONNX Runtime decodes the weights when it loads the model, so that speed and
memory are those of the original.
"""

from typing import Literal

import onnx_ir as ir
from pydantic import Field, field_validator

from worker.compression.passes.base import Context, Pass
from worker.compression.precision import ROLES, Storing, Surroundings, store_weights


class WeightQuantization(Pass):
    """Store weights in 8 or 4 bits: a smaller file at the same speed, on any model."""

    method: Literal["weight_quantization"] = "weight_quantization"
    bits: Literal[8, 4] = Field(
        default=8,
        description="Bits of a weight: 8 with a scale for each channel, or 4 with a scale for "
        "each block of 32.",
    )
    min_sqnr_db: float | None = Field(
        default=25,
        ge=0,
        le=100,
        description="Weights get more bits, those that cost most first, until the outputs keep "
        "this SQNR on the samples; null gives every weight the bits asked for.",
    )
    ops: list[str] = Field(
        default=list(ROLES),
        min_length=1,
        description="Operators whose weights are stored in fewer bits.",
    )
    keep_float: list[str] = Field(
        default=[],
        description="Weights that stay float: node or weight names, module paths, wildcards.",
    )

    @field_validator("ops")
    @classmethod
    def _known(cls, ops: list[str]) -> list[str]:
        unknown = sorted(set(ops) - set(ROLES))
        if unknown:
            raise ValueError(
                f"no weights are known of {', '.join(unknown)}; there are {', '.join(ROLES)}"
            )
        return ops

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        every = set(self.ops) == set(ROLES)
        asked = Storing(
            method=self.method,
            kind="int8" if self.bits == 8 else "int4",
            min_sqnr_db=self.min_sqnr_db,
            ops=None if every else frozenset(self.ops),
            keep_float=self.keep_float,
        )
        around = Surroundings(
            samples=context.calibration,
            workdir=context.workdir,
            threads=context.target.threads,
            progress=context.progress,
        )
        return store_weights(model, asked, around)
