"""Static int8 quantization: activations by ranges seen on samples, weights by their own.

U8 activations with S8 weights per channel are what ONNX Runtime has its fast kernels for.
"""

import warnings
from collections.abc import Mapping
from typing import Literal, Self

import onnx_ir as ir
from pydantic import Field, field_validator, model_validator

from worker.compression import graph
from worker.compression.errors import CompressionWarning
from worker.compression.passes.base import Context, Pass
from worker.compression.precision import store_halves
from worker.compression.quantization import (
    DEFAULT_OPS,
    FEWEST_SAMPLES,
    FLOAT_OUTPUT,
    INT8_OPS,
    INTEGER_FLOAT_OUTPUT,
    Calibration,
    Choice,
    Format,
    Options,
    QuantizedWeight,
    add_to_bias,
    bias_corrections,
    choose,
    compensated_weights,
    computes_in_half,
    insert,
    insert_qoperators,
)
from worker.compression.ranges import Method, Observed


class StaticQuantization(Pass):
    """Make layers int8, with activation ranges from calibration samples."""

    method: Literal["static_quantization"] = "static_quantization"
    format: Format = Field(
        default="qdq",
        description="Q and DQ around float operators, or operators of integers.",
    )
    activations: Literal["auto", "uint8", "int8"] = Field(
        default="auto",
        description="Type of activations; auto is uint8, fast on x86 and ARM.",
    )
    weights: Literal["auto", "int8", "int7"] = Field(
        default="auto",
        description="Type of weights; int7 cannot saturate on CPUs without VNNI. auto is int8, "
        "and int7 where the target is x86-avx2.",
    )
    per_channel: bool = Field(
        default=True,
        description="One scale for each output channel of a weight.",
    )
    calibration: Method = Field(
        default="minmax",
        description="Range of an activation: all that was seen; 99.99 % of it; the one that "
        "loses least information; or the one with the least squared error.",
    )
    rounding: Literal["nearest", "gptq"] = Field(
        default="nearest",
        description="gptq rounds each weight so that it makes up for those rounded before it, "
        "by the samples: closer, and slower to make.",
    )
    bias_correction: bool = Field(
        default=False,
        description="Change biases so that the mean of each layer's output stays, where that "
        "brings the outputs of samples that were set aside closer.",
    )
    ops: list[str] = Field(
        default=list(DEFAULT_OPS),
        min_length=1,
        description="Operators that may become int8.",
    )
    keep_float: list[str] = Field(
        default=[],
        description="Nodes that stay float: node names, module paths, wildcards.",
    )

    @field_validator("ops")
    @classmethod
    def _known(cls, ops: list[str]) -> list[str]:
        unknown = sorted(set(ops) - set(INT8_OPS))
        if unknown:
            raise ValueError(
                f"no int8 kernel for {', '.join(unknown)}; there are {', '.join(INT8_OPS)}"
            )
        return ops

    @model_validator(mode="after")
    def _writable(self) -> Self:
        if self.format == "qoperator" and self.rounding != "nearest":
            raise ValueError("rounding gptq needs the format qdq")
        if self.format == "qoperator" and self.bias_correction:
            raise ValueError("bias_correction needs the format qdq")
        return self

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        halves = computes_in_half(model)
        result = self._quantized(model, context)
        # int8 needs floats around it; what stays float would be stored at twice its size.
        return store_halves(result) if halves else result

    def _quantized(self, model: ir.Model, context: Context) -> ir.Model:
        context.progress(0, "preparing the graph")
        calibration = self._calibration(model, context)
        model = calibration.model()
        wanted = self._chosen(model, context, observed=None)
        if not wanted.compute:
            return _unchanged(model, wanted)
        calibration.see(
            wanted.tensors(float_outputs=self._options(context).float_outputs),
            lambda share, message: context.progress(0.05 + 0.5 * share, message),
        )
        chosen = self._chosen(model, context, observed=calibration.observed)
        if not chosen.compute:
            return _unchanged(model, chosen)
        context.progress(0.6, "writing int8 weights")
        result = self._written(model, chosen, calibration, context)
        if self.bias_correction:
            result = self._corrected(result, calibration, context)
        _tell(result, chosen)
        return result

    def _chosen(
        self, model: ir.Model, context: Context, *, observed: Mapping[str, Observed] | None
    ) -> Choice:
        return choose(
            model,
            self.ops,
            set(graph.select_nodes(list(model.graph), self.keep_float)),
            observed=observed,
            float_outputs=self._options(context).float_outputs,
        )

    def _written(
        self, model: ir.Model, chosen: Choice, calibration: Calibration, context: Context
    ) -> ir.Model:
        options, ranges = self._options(context), calibration.ranges(self.calibration)
        if self.format == "qoperator":
            return insert_qoperators(calibration.path, chosen.nodes, ranges, options)
        weights = self._rounded(model, chosen, calibration, context)
        return insert(model, chosen.nodes, ranges, options, weights=weights)

    def _corrected(
        self, result: ir.Model, calibration: Calibration, context: Context
    ) -> ir.Model:
        """The result written again with corrected biases, or as it is where none helps."""
        if len(calibration.samples) < FEWEST_SAMPLES:
            warnings.warn(_uncorrected(f"there are fewer than {FEWEST_SAMPLES}"), stacklevel=3)
            return result
        found = bias_corrections(
            calibration.path,
            result,
            calibration.samples,
            threads=context.target.threads,
            progress=lambda share: context.progress(0.8 + 0.2 * share, "correcting biases"),
        )
        if not found.amounts:
            warnings.warn(_uncorrected("corrected ones did worse on them"), stacklevel=3)
        model = calibration.model()
        chosen = self._chosen(model, context, observed=calibration.observed)
        for node in chosen.nodes:
            if (amount := found.amounts.get(node.name or "")) is not None:
                add_to_bias(model, node, amount)
        return self._written(model, chosen, calibration, context)

    def _calibration(self, model: ir.Model, context: Context) -> Calibration:
        """What was observed of this model file before, or a beginning."""
        cache, key = context.cache, ""
        if cache is not None and context.source is not None:
            key = f"calibration {graph.file_digest(context.source)} {context.target.threads}"
        known = cache.get(key) if cache is not None else None
        if (
            isinstance(known, Calibration)
            and known.samples is context.calibration
            and known.path.exists()
        ):
            return known
        made = Calibration.of(
            model,
            context.calibration,
            context.workdir / "prepared.onnx",
            # One who keeps it may ask for another method next.
            histograms=bool(key) or self.calibration != "minmax",
            threads=context.target.threads,
        )
        if cache is not None and key:
            cache[key] = made
        return made

    def _rounded(
        self, model: ir.Model, chosen: Choice, calibration: Calibration, context: Context
    ) -> dict[str, QuantizedWeight]:
        """Weights that are not rounded to nearest, by name."""
        if self.rounding == "nearest":
            return {}
        return compensated_weights(
            model,
            chosen.nodes,
            calibration,
            self._options(context),
            ranges=calibration.ranges(self.calibration),
            seed=context.seed,
            progress=lambda share: context.progress(0.6 + 0.3 * share, "rounding weights"),
        )

    def _options(self, context: Context) -> Options:
        narrow = self.weights == "int7" or (
            self.weights == "auto" and context.target.cpu == "x86-avx2"
        )
        return Options(
            format=self.format,
            signed_activations=self.activations == "int8",
            seven_bit_weights=narrow,
            per_channel=self.per_channel,
            float_outputs=FLOAT_OUTPUT if self.format == "qdq" else INTEGER_FLOAT_OUTPUT,
        )


def _tell(model: ir.Model, choice: Choice) -> None:
    """Keep the reasons with the model; warn of what was int8 before."""
    for name, reason in choice.reasons.items():
        graph.note(model, name, reason)
    if choice.quantized_before:
        warnings.warn(
            CompressionWarning(
                f"the model was quantized in part already; its {choice.quantized_before} "
                "quantization nodes and their layers were left as they are",
                code="already_quantized",
            ),
            stacklevel=3,
        )


def _uncorrected(reason: str) -> CompressionWarning:
    return CompressionWarning(
        f"biases were left as they are: {reason} of the samples", code="biases_kept"
    )


def _unchanged(model: ir.Model, choice: Choice) -> ir.Model:
    _tell(model, choice)
    reasons = sorted(set(choice.reasons.values())) or ["it has no Conv, Gemm or MatMul"]
    warnings.warn(
        CompressionWarning(
            f"nothing was quantized: {'; '.join(reasons[:3])}", code="nothing_quantized"
        ),
        stacklevel=3,
    )
    return model
