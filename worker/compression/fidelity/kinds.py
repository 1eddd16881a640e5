"""What each output is, as far as the graph tells (DESIGN.md 3.1)."""

from collections.abc import Mapping

import onnx_ir as ir

from worker.compression import graph
from worker.compression.errors import InvalidRecipe
from worker.compression.fidelity.answers import VECTOR, is_product, is_softmaxed, named
from worker.compression.fidelity.layout import SAME_VALUES, affine, chain
from worker.compression.fidelity.measures import OutputKind

_NORMS = frozenset(
    {"LayerNormalization", "SkipLayerNormalization", "SimplifiedLayerNormalization"}
    | {"RMSNormalization", "LpNormalization", "GroupNormalization"}
)
_POOLED = frozenset(
    {"GlobalAveragePool", "ReduceMean", "ReduceMax", "BatchNormalization", "Tanh", "Gather"}
)
# How the divisor of a written-out normalization is made.
_DIVISOR = frozenset(
    {"Sqrt", "ReduceL2", "Expand", "Clip", "Max", "Unsqueeze", "Reciprocal", "Add", "Pow"}
)
_TOKEN_VECTOR = 64


def output_kinds(model: ir.Model, stated: Mapping[str, OutputKind]) -> dict[str, OutputKind]:
    """The kind of every output: as stated, else inferred.

    `class`: integers, and floats with at least two entries along the last axis that a softmax
    made, or at rank 2 or 3 a Gemm or MatMul (and a bias), unless the output's name says that
    these are boxes or the like. `embedding`: vectors of at least 16 entries that were
    normalized or pooled, and per token, of at least 64, that were normalized. All else is
    `value`, which is bound most strictly.

    Raises:
        InvalidRecipe: a stated name is no output.
    """
    specs = graph.outputs(model)
    unknown = sorted(set(stated) - {spec.name for spec in specs})
    if unknown:
        raise InvalidRecipe(
            f"goal.outputs names {', '.join(map(repr, unknown))}, which is no output",
            hint=f"the outputs are {', '.join(spec.name for spec in specs)}",
        )
    values = {value.name: value for value in model.graph.outputs}
    return {
        spec.name: stated.get(spec.name) or _infer(values[spec.name], spec) for spec in specs
    }


def _infer(value: ir.Value, spec: graph.InputSpec) -> OutputKind:
    if spec.dtype.kind in "biuO":
        return "class"
    rank = len(spec.shape) if spec.ranked else None
    last = spec.shape[-1] if spec.shape else None
    if last == 1 or rank == 0 or rank == 1:
        return "value"
    if is_softmaxed(value, rank):
        return "class"
    if rank in (2, 3, None) and is_product(value, rank):
        return named(spec.name, last) or "class"
    return "embedding" if _embeds(value, rank, last) else "value"


def _embeds(value: ir.Value, rank: int | None, last: int | str | None) -> bool:
    if rank not in (2, 3) or (isinstance(last, int) and last < VECTOR):
        return False
    node = next(
        (node for node in chain(value) if node.op_type not in SAME_VALUES and not affine(node)),
        None,
    )
    if node is None:
        return False
    if node.op_type in _NORMS or _normalized(node):
        return rank == 2 or not isinstance(last, int) or last >= _TOKEN_VECTOR
    return rank == 2 and node.op_type in _POOLED


def _normalized(node: ir.Node) -> bool:
    """A normalization written out: x / sqrt(...), x / norm(x) or x * (1 / sqrt(...))."""
    if node.op_type not in ("Div", "Mul"):
        return False
    return any(_is_norm(given) for given in node.inputs)


def _is_norm(value: ir.Value | None) -> bool:
    for node in chain(value):
        if node.op_type in ("Sqrt", "ReduceL2"):
            return True
        if node.op_type not in _DIVISOR and not affine(node):
            return False
    return False
