"""Half precision: weights stored as float16, computed with as float32.

CPUs have few float16 kernels, so what runs stays as it was; the file is half as large.
"""

from typing import Literal

import onnx_ir as ir
from pydantic import Field

from worker.compression.passes.base import Context, Pass
from worker.compression.precision import Storing, Surroundings, store_weights


class HalfPrecision(Pass):
    """Store weights as float16: half the file, the same speed, inputs and outputs unchanged."""

    method: Literal["half_precision"] = "half_precision"
    min_sqnr_db: float | None = Field(
        default=40,
        ge=0,
        le=100,
        description="Weights stay float, those that cost most first, until the outputs keep "
        "this SQNR on the samples; null makes every weight float16.",
    )
    keep_float: list[str] = Field(
        default=[],
        description="Weights that stay float: node or weight names, module paths, wildcards.",
    )

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        asked = Storing(
            method=self.method,
            kind="float16",
            min_sqnr_db=self.min_sqnr_db,
            ops=None,
            keep_float=self.keep_float,
        )
        around = Surroundings(
            samples=context.calibration,
            workdir=context.workdir,
            threads=context.target.threads,
            progress=context.progress,
        )
        return store_weights(model, asked, around)
