"""Which parameters a recipe means, and what the user is told of the others."""

import warnings
from collections.abc import Sequence, Set

import onnx_ir as ir

from worker.compression import graph
from worker.compression.errors import CompressionWarning
from worker.compression.precision.parameters import Parameter
from worker.compression.precision.planning import Plan


def chosen(
    model: ir.Model,
    found: Sequence[Parameter],
    *,
    ops: Set[str] | None,
    keep_float: Sequence[str],
) -> list[Parameter]:
    """The parameters that only `ops` read (None: any), without those of kept nodes.

    Raises:
        InvalidRecipe: a pattern matches no node and no parameter.
    """
    readers = {node: None for one in found for node, _ in one.readers}
    kept = set(graph.select_readers(list(readers), [one.value for one in found], keep_float))
    wanted = []
    for one in found:
        nodes = {node for node, _ in one.readers}
        if nodes & kept or one.value in kept:
            _note(model, one, "kept float as asked")
        elif ops is not None and not one.ops <= ops:
            _note(model, one, f"{', '.join(sorted(one.ops - ops))} is not among the operators")
        else:
            wanted.append(one)
    return wanted


def tell(model: ir.Model, made: Plan, *, method: str) -> None:
    """Keep the reasons with the model; warn where nothing could be stored in fewer bits."""
    for parameter, reason in made.reasons.items():
        encoding = made.encodings.get(parameter)
        became = f"stored as {encoding.kind}" if encoding else "kept float"
        _note(model, parameter, f"{became}: {reason}")
    if made.encodings:
        return
    reasons = sorted(set(made.reasons.values())) or ["it has no float weights to speak of"]
    warnings.warn(
        CompressionWarning(
            f"{method} changed nothing: {'; '.join(reasons[:3])}", code="nothing_stored_smaller"
        ),
        stacklevel=3,
    )


def _note(model: ir.Model, parameter: Parameter, reason: str) -> None:
    for node, _ in parameter.readers:
        graph.note(model, node.name or "", reason)
