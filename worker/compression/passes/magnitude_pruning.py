"""Magnitude pruning: the smallest weights become zero.

Unstructured, as torch.nn.utils.prune does it, or two of every four (Mishra et al., 2021).
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

import numpy as np
import onnx_ir as ir
from pydantic import Field, model_validator

from worker.compression.errors import CompressionWarning, InvalidRecipe
from worker.compression.graph import Weight, note, select, weights
from worker.compression.passes.base import Context, Pass

# Zeros below this share are rounding, not an earlier pruning.
_SPARSE_SHARE = 0.01
# Above this many scores, equal ones are told apart by their position in the file: torch's
# own choice takes some 30 bytes of memory for each score.
_TOPK_LIMIT = 1 << 27

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


class MagnitudePruning(Pass):
    """Set the weights smallest in absolute value to zero; the file shrinks when compressed."""

    method: Literal["magnitude_pruning"] = "magnitude_pruning"
    amount: Share | None = Field(
        default=None,
        description="Share of the weights that become zero: k = round(amount * n) of them.",
    )
    scope: Literal["global", "layer"] = Field(
        default="global",
        description="Compare the weights of all layers with one another, or within each layer.",
    )
    norm: Literal["l1", "l2"] = Field(
        default="l1",
        description="How a weight is scored; for single weights both give the same order.",
    )
    pattern: Literal["2:4"] | None = Field(
        default=None,
        description="2:4 keeps the two largest of every four weights along the input axis; "
        "it takes the place of amount.",
    )
    include: list[str] = Field(
        default=[],
        description="Only these layers: module paths, node or initializer names, wildcards.",
    )
    exclude: list[str] = Field(
        default=[],
        description="Not these layers: module paths, node or initializer names, wildcards.",
    )

    @model_validator(mode="after")
    def _amount_or_pattern(self) -> Self:
        if (self.amount is None) == (self.pattern is None):
            raise ValueError("give either amount or pattern, not both and not neither")
        return self

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        chosen = self._weights(model)
        _report_zeros(chosen)
        context.progress(0, f"pruning {len(chosen)} weights")
        if self.pattern is not None:
            _prune_two_of_four(model, chosen, context)
        elif self.scope == "global":
            _prune_smallest(chosen, self.amount or 0)
        else:
            for position, weight in enumerate(chosen):
                context.progress(position / len(chosen), f"pruning {weight.name}")
                _prune_smallest([weight], self.amount or 0)
        return model

    def _weights(self, model: ir.Model) -> list[Weight]:
        """Weights that may be pruned.

        Raises:
            InvalidRecipe: there are none.
        """
        found = weights(model)
        quantized = _count_quantized(model)
        if quantized:
            warnings.warn(
                CompressionWarning(
                    f"{quantized} weights are quantized already and were not pruned",
                    code="quantized_weights_skipped",
                ),
                stacklevel=3,
            )
        chosen = select(found, self.include, self.exclude) if found else []
        if chosen:
            return chosen
        raise InvalidRecipe(
            "magnitude_pruning finds no floating-point weight of Conv, ConvTranspose, Gemm, "
            "MatMul, LSTM or GRU to prune",
            hint="prune before quantization, and exclude fewer layers"
            if quantized or found
            else "leave magnitude_pruning out for this model",
            code="nothing_to_prune",
        )


def _count_quantized(model: ir.Model) -> int:
    readers = [node for node in model.graph.all_nodes() if node.op_type == "DequantizeLinear"]
    sources = {node.inputs[0] for node in readers}
    integers = {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT4, ir.DataType.UINT4}
    return sum(
        value is not None and value.const_value is not None and value.dtype in integers
        for value in sources
    )


def _report_zeros(chosen: Sequence[Weight]) -> None:
    total = sum(weight.size for weight in chosen)
    zeros = sum(weight.size - int(np.count_nonzero(weight.array())) for weight in chosen)
    if zeros >= _SPARSE_SHARE * total:
        warnings.warn(
            CompressionWarning(
                f"{zeros / total:.1%} of the weights were zero before pruning; "
                "they stay zero and count towards the amount",
                code="already_sparse",
            ),
            stacklevel=3,
        )


def _prune_smallest(chosen: Sequence[Weight], amount: float) -> None:
    """Zero the k weights smallest in absolute value, in place.

    Equal scores at the border are told apart as torch.topk does over the concatenation.
    """
    total = sum(weight.size for weight in chosen)
    count = round(amount * total)
    if count == 0:
        return
    threshold, below, equal = _kth_smallest(chosen, count)
    if threshold == 0:
        return  # as many are zero already
    spare = count - below
    if spare < equal and total <= _TOPK_LIMIT:
        masks = _masks_by_topk(chosen, count)
    else:
        masks = _masks_by_position(chosen, threshold, spare=spare)
    for weight, mask in zip(chosen, masks, strict=True):
        _zero(weight, mask)


def _kth_smallest(chosen: Sequence[Weight], k: int) -> tuple[float, int, int]:
    """The k-th smallest score, how many are below it and how many equal it.

    Counts by the upper, then the lower halves of the bits, whose order is that of the numbers
    where these are not negative: exact, and no two weights are in memory at once.
    """
    wide = any(weight.array().dtype == np.float64 for weight in chosen)
    bits = 64 if wide else 32
    integer, real = np.dtype(f"u{bits // 8}"), np.dtype(f"f{bits // 8}")
    prefix = below = equal = 0
    for shift in range(bits - 16, -1, -16):
        counts = np.zeros(1 << 16, dtype=np.int64)
        for weight in chosen:
            keys = _score(weight).astype(real, copy=False).ravel().view(integer)
            if shift < bits - 16:
                keys = keys[keys >> (shift + 16) == prefix]
            digits = (keys >> shift & 0xFFFF).astype(np.int64)
            counts += np.bincount(digits, minlength=1 << 16)
        upto = np.cumsum(counts)
        digit = int(np.searchsorted(upto, k - below))
        equal = int(counts[digit])
        below += int(upto[digit]) - equal
        prefix = prefix << 16 | digit
    return float(np.array([prefix], dtype=integer).view(real)[0]), below, equal


def _masks_by_topk(chosen: Sequence[Weight], count: int) -> Iterator[np.ndarray]:
    import torch  # noqa: PLC0415 - heavy, and the web process imports this module

    scores = torch.cat([torch.from_numpy(_score(weight).ravel()) for weight in chosen])
    mask = np.zeros(len(scores), dtype=bool)
    mask[torch.topk(scores, k=count, largest=False).indices.numpy()] = True
    start = 0
    for weight in chosen:
        yield mask[start : start + weight.size].reshape(weight.array().shape)
        start += weight.size


def _masks_by_position(
    chosen: Sequence[Weight], threshold: float, *, spare: int
) -> Iterator[np.ndarray]:
    """All scores below the threshold, and the first `spare` that equal it."""
    for weight in chosen:
        score = _score(weight)
        mask = score < threshold
        equal = np.flatnonzero(score == threshold)[:spare]
        mask.ravel()[equal] = True
        spare -= equal.size
        yield mask


def _prune_two_of_four(model: ir.Model, chosen: Sequence[Weight], context: Context) -> None:
    fitting = [weight for weight in chosen if _groups_of_four(weight) is not None]
    for weight in set(chosen) - set(fitting):
        note(model, weight.nodes[0].name or "", "its input axis is not a multiple of 4")
    if not fitting:
        raise InvalidRecipe(
            "no layer has an input axis that is a multiple of 4, which the pattern 2:4 needs",
            hint="give an amount in place of the pattern",
            code="nothing_to_prune",
        )
    for position, weight in enumerate(fitting):
        context.progress(position / len(fitting), f"pruning {weight.name}")
        groups = _groups_of_four(weight)
        if groups is None:
            continue
        values = _score(weight).ravel()[groups]
        smallest = np.argsort(values, axis=1, kind="stable")[:, :2]
        mask = np.zeros(weight.size, dtype=bool)
        mask[np.take_along_axis(groups, smallest, axis=1)] = True
        _zero(weight, mask.reshape(weight.array().shape))


def _groups_of_four(weight: Weight) -> np.ndarray | None:
    """Flat positions of the weight, four neighbours along its input axis in each row."""
    use = weight.uses[0]
    shape = weight.array().shape
    seen = use.arranged(np.arange(weight.size).reshape(shape))
    axis = use.reduction_axis if seen.ndim > 1 else 0
    if seen.shape[axis] % 4:
        return None
    return np.moveaxis(seen, axis, -1).reshape(-1, 4)


def _score(weight: Weight) -> np.ndarray:
    """Absolute values; halves widen exactly, so their order stays."""
    values: np.ndarray = np.abs(weight.array())
    return values if values.dtype == np.float64 else values.astype(np.float32, copy=False)


def _zero(weight: Weight, mask: np.ndarray) -> None:
    weight.replace(np.where(mask, weight.array().dtype.type(0), weight.array()))
