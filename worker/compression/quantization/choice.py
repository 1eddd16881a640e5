"""Which nodes become int8, and why the others do not.

A Conv, Gemm, MatMul or a lookup in a constant table becomes int8 by itself. Everything else
only inside of an int8 region, where all that flows in is int8 already: a lone int8 Add between
float nodes costs accuracy and two conversions, and breaks the fusion of LayerNorm and Gelu.
"""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass, field

import onnx_ir as ir

from worker.compression.graph import constant
from worker.compression.quantization.operators import (
    COMPUTE,
    FLOAT_OUTPUT,
    LAYERS,
    LOOKUP,
    QUANTIZED,
    SAME_SCALE,
    absorbed,
    data_inputs,
)
from worker.compression.quantization.refusals import Wanted, refusal
from worker.compression.ranges import Observed


@dataclass
class Choice:
    """Nodes to quantize by name, and the reasons of the layers that stay float."""

    nodes: list[ir.Node] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    quantized_before: int = 0

    @property
    def compute(self) -> list[ir.Node]:
        """The chosen nodes that carry the work or the weights."""
        return [node for node in self.nodes if node.op_type in (*COMPUTE, *LOOKUP)]

    def tensors(self, *, float_outputs: Collection[str]) -> list[str]:
        """Names of the tensors whose range may be needed."""
        chosen = set(self.nodes)
        gone = {node.inputs[0] for node in absorbed(self.nodes)}
        values: dict[ir.Value, None] = {}
        for node in self.nodes:
            read = [node.inputs[index] for index in data_inputs(node)]
            # A moved tensor has the scale of its source, as long as what moves it is int8.
            compute = node.op_type in COMPUTE
            values.update(
                dict.fromkeys(v for v in read if v and (compute or not _derived(v, chosen)))
            )
            if node.op_type not in SAME_SCALE and node.op_type not in float_outputs:
                values.update(dict.fromkeys(node.outputs))
        wanted = [v for v in values if v not in gone and constant(v) is None]
        return [value.name or "" for value in wanted]


def choose(
    model: ir.Model,
    ops: Sequence[str],
    keep_float: Set[ir.Node],
    *,
    observed: Mapping[str, Observed] | None = None,
    float_outputs: Collection[str] = FLOAT_OUTPUT,
) -> Choice:
    """Choose the nodes; with `observed` ranges, those that ranges forbid are left out."""
    choice = Choice()
    inside: set[ir.Value] = set()
    wanted = Wanted(ops, keep_float, float_outputs, _captured(model), observed)
    for node in model.graph:
        if node.op_type in QUANTIZED:
            choice.quantized_before += 1
        reason = refusal(node, wanted, inside)
        if reason is None:
            choice.nodes.append(node)
            if wanted.makes_int8(node):
                inside.update(node.outputs)
        elif node.op_type in LAYERS:
            choice.reasons[node.name or ""] = reason
    _note_bodies(model, choice)
    return choice


def _derived(value: ir.Value, chosen: Set[ir.Node]) -> bool:
    """Whether a tensor takes its scale from the input of the chosen node that makes it."""
    producer = value.producer()
    return producer is not None and producer in chosen and producer.op_type in SAME_SCALE


def _captured(model: ir.Model) -> set[ir.Value]:
    """Values of the main graph that bodies of If and Loop read, and which must not vanish."""
    captured: set[ir.Value] = set()
    for node in model.graph.all_nodes():
        if node.graph is model.graph:
            continue
        captured.update(
            value for value in node.inputs if value is not None and value.graph is model.graph
        )
    return captured


def _note_bodies(model: ir.Model, choice: Choice) -> None:
    for node in model.graph.all_nodes():
        if node.op_type in LAYERS and node.graph is not model.graph:
            choice.reasons[node.name or ""] = (
                "it is inside a body of If or Loop, where dynamic_quantization and "
                "weight_quantization reach it"
            )
