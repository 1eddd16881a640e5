"""Compaction: the same graph in fewer bytes of names, shapes and notes.

Exporters write the path of a value in the training code at every place that reads it, and the
shapes that any reader can infer again: of small models that is as much as half of the file.
"""

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Literal

import onnx_ir as ir
from onnx_ir.passes.common import DeduplicateInitializersPass

from worker.compression import graph
from worker.compression.passes.base import Context, Pass

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Compaction(Pass):
    """Short names inside the graph, no stored shapes: a smaller file, computing the same."""

    method: Literal["compaction"] = "compaction"

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        DeduplicateInitializersPass()(model)
        fixed = _fixed(model)
        names = (name for name in _short_names() if name not in fixed)
        for scope in model.graphs():
            _shorten(scope, fixed, names)
        return model


def _fixed(model: ir.Model) -> set[str]:
    """Names that people and other programs use: of inputs, outputs and weights."""
    scopes = list(model.graphs())
    kept: set[str] = {value.name or "" for value in (*model.graph.inputs, *model.graph.outputs)}
    return kept.union(*(scope.initializers for scope in scopes))


def _shorten(scope: ir.Graph, fixed: set[str], names: Iterator[str]) -> None:
    """Rename what nodes compute; layers keep their names, so that they can be found again."""
    ends = {*scope.inputs, *scope.outputs}
    for held in scope.initializers.values():
        if held not in ends:
            # The tensor itself has both.
            held.shape = held.type = None
    for node in scope:
        node.doc_string = None
        node.metadata_props.clear()
        if not _is_layer(node):
            node.name = None
        for value in _computed(node.outputs):
            value.doc_string = None
            value.metadata_props.clear()
            if value.name not in fixed:
                value.name = next(names)
            if value not in ends:
                value.shape = value.type = None


def _computed(values: Iterable[ir.Value]) -> Iterator[ir.Value]:
    """Without the outputs that a node leaves out."""
    return (value for value in values if value.name)


def _is_layer(node: ir.Node) -> bool:
    """Whether the node computes with weights, in floats or in integers."""
    return any(word in node.op_type for word in (*graph.WEIGHT_INPUTS, "QGemm"))


def _short_names() -> Iterator[str]:
    """0, 1, .. z, 10, 11, ..: as few bytes as there can be."""
    for number in count():
        yield _in_base_36(number)


def _in_base_36(number: int) -> str:
    digits = ""
    while number or not digits:
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
