"""Which nodes become int8, and why the others do not.

A Conv, Gemm, MatMul or a lookup in a constant table becomes int8 by itself. Everything else
only inside of an int8 region, where all that flows in is int8 already: a lone int8 Add between
float nodes costs accuracy and two conversions, and breaks the fusion of LayerNorm and Gelu.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

import onnx_ir as ir

from worker.compression.graph import constant
from worker.compression.ranges import Observed

# Operators with an int8 kernel in ONNX Runtime on CPU, or that pass int8 through.
_COMPUTE = ("Conv", "Gemm", "MatMul")
_LOOKUP = ("Gather",)
JOINS = ("Add", "Mul", "Concat")
_SINGLE = ("GlobalAveragePool", "AveragePool", "Sigmoid", "LeakyRelu", "Relu", "Clip")
_MOVES = (
    "MaxPool", "Resize", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice",
    "Split",
)  # fmt: skip
INT8_OPS = (*_COMPUTE, *_LOOKUP, *JOINS, *_SINGLE, *_MOVES)
DEFAULT_OPS = INT8_OPS

# Operators whose output has the scale of their input, so that it needs no range of its own.
SAME_SCALE = {*_MOVES, "AveragePool", "Gather"}
# Operators that vanish, because the range of their output clips as they do.
_ABSORBED = {"Relu", "Clip"}
# Their int8 kernel needs no quantized output.
FLOAT_OUTPUT = ("Gemm", "MatMul")
BIAS_INPUTS = {"Conv": 2, "Gemm": 2}
_QUANTIZED = {
    "QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm",
    "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeLinear", "MatMulNBits",
}  # fmt: skip

# Joined tensors whose ranges differ by more keep their own scale, in float.
_CONCAT_RATIO = 10
_SUM_RATIO = 64
# Larger values are masks, not signal.
_MASK = 1e6
# A lookup table below this is not worth a scale.
_TABLE_SIZE = 1024


@dataclass
class Choice:
    """Nodes to quantize by name, and the reasons of the layers that stay float."""

    nodes: list[ir.Node] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    quantized_before: int = 0

    @property
    def compute(self) -> list[ir.Node]:
        """The chosen nodes that carry the work or the weights."""
        return [node for node in self.nodes if node.op_type in (*_COMPUTE, *_LOOKUP)]

    def tensors(self, *, float_outputs: bool) -> list[str]:
        """Names of the tensors whose range must be known."""
        chosen = set(self.nodes)
        gone = {node.inputs[0] for node in absorbed(self.nodes)}
        values: dict[ir.Value, None] = {}
        for node in self.nodes:
            read = [node.inputs[index] for index in data_inputs(node)]
            values.update(dict.fromkeys(v for v in read if v and not _derived(v, chosen)))
            if node.op_type not in SAME_SCALE and not (
                float_outputs and node.op_type in FLOAT_OUTPUT
            ):
                values.update(dict.fromkeys(node.outputs))
        wanted = [v for v in values if v not in gone and constant(v) is None]
        return [value.name or "" for value in wanted]


def data_inputs(node: ir.Node) -> range:
    """Positions of the inputs that an int8 kernel reads as int8."""
    if node.op_type in ("Conv", "Gemm", "MatMul"):
        return range(2)
    return range(len(node.inputs)) if node.op_type in JOINS else range(1)


def absorbed(nodes: Sequence[ir.Node]) -> list[ir.Node]:
    """The Relu and Clip nodes that the range of their output stands for."""
    return [
        node
        for node in nodes
        if node.op_type in _ABSORBED
        and node.inputs[0] is not None
        and len(node.inputs[0].uses()) == 1
        and not node.inputs[0].is_graph_output()
    ]


def choose(
    model: ir.Model,
    ops: Sequence[str],
    keep_float: Set[ir.Node],
    *,
    observed: Mapping[str, Observed] | None = None,
    float_outputs: bool = True,
) -> Choice:
    """Choose the nodes; with `observed` ranges, those that ranges forbid are left out."""
    choice = Choice()
    inside: set[ir.Value] = set()
    captured = _captured(model)
    for node in model.graph:
        if node.op_type in _QUANTIZED:
            choice.quantized_before += 1
        reason = _refusal(node, ops, keep_float, inside, captured)
        if reason is None and observed is not None:
            reason = _range_refusal(node, observed, float_outputs=float_outputs)
        if reason is None:
            choice.nodes.append(node)
            if not (float_outputs and node.op_type in FLOAT_OUTPUT):
                inside.update(node.outputs)
        elif node.op_type in (*_COMPUTE, "ConvTranspose", "LSTM", "GRU"):
            choice.reasons[node.name or ""] = reason
    _note_bodies(model, choice)
    return choice


def _refusal(
    node: ir.Node,
    ops: Sequence[str],
    keep_float: Set[ir.Node],
    inside: Set[ir.Value],
    captured: set[ir.Value],
) -> str | None:
    """Why a node cannot be int8, from the graph alone."""
    if node.op_type not in ops or node.domain not in ("", "ai.onnx"):
        return f"{node.op_type} is not among the operators to quantize"
    if node in keep_float:
        return "kept float as asked"
    if _touches_quantized(node):
        return "quantized already"
    if node.op_type not in FLOAT_OUTPUT and captured.intersection(node.outputs):
        # With a second reader of its float output, no int8 kernel takes it.
        return "a body of If or Loop reads its output"
    if node.op_type in _ABSORBED and node.inputs[0] in captured:
        return "a body of If or Loop reads its input"
    if node.op_type in _COMPUTE:
        return _compute_refusal(node)
    if node.op_type in _LOOKUP:
        return _lookup_refusal(node)
    return _region_refusal(node, inside)


def _compute_refusal(node: ir.Node) -> str | None:
    constants = [constant(value) for value in node.inputs]
    if all(tensor is not None for tensor in constants[:2]):
        return "both inputs are constant"
    if any(t is not None and t.dtype != ir.DataType.FLOAT for t in constants[:2]):
        return "its weight is not float32"
    if any(tensor is not None and tensor.size == 0 for tensor in constants):
        return "its weight is empty"
    if node.op_type == "MatMul":
        return None
    if constants[1] is None:
        return "its weight is computed, not constant"
    if node.op_type == "Gemm":
        return _gemm_refusal(node, constants)
    if len(constants) > 2 and node.inputs[2] is not None and constants[2] is None:
        return "its bias is computed, not constant"
    return None


def _gemm_refusal(node: ir.Node, constants: Sequence[ir.TensorProtocol | None]) -> str | None:
    alpha = node.attributes.get_float("alpha", 1.0)
    beta = node.attributes.get_float("beta", 1.0)
    if alpha != 1.0 or beta != 1.0:
        return "its alpha or beta is not 1"
    bias = constants[2] if len(constants) > 2 else None
    if len(constants) > 2 and node.inputs[2] is not None and (bias is None or bias.size < 2):
        return "its bias is computed or a scalar"
    if bias is not None and len([size for size in bias.shape.numpy() if size != 1]) > 1:
        return "its bias differs from row to row"
    return None


def _lookup_refusal(node: ir.Node) -> str | None:
    table = constant(node.inputs[0])
    if table is None or table.dtype != ir.DataType.FLOAT or table.size < _TABLE_SIZE:
        return "no large table of float32"
    return None


def _region_refusal(node: ir.Node, inside: Set[ir.Value]) -> str | None:
    read = node.inputs if node.op_type in JOINS else node.inputs[:1]
    if any(value not in inside for value in read):
        return "its inputs are not int8"
    if node.op_type == "Clip" and not _clips_around_zero(node):
        return "its limits exclude zero"
    return None


def _clips_around_zero(node: ir.Node) -> bool:
    """Whether dropping the Clip in favour of a range, which always includes zero, is right."""
    limits = [constant(value) for value in node.inputs[1:3]]
    if any(
        limit is None and value is not None
        for limit, value in zip(limits, node.inputs[1:3], strict=True)
    ):
        return False
    low = float(limits[0].numpy().item()) if limits and limits[0] is not None else -1.0
    high = float(limits[1].numpy().item()) if len(limits) > 1 and limits[1] is not None else 1.0
    return low <= 0 <= high


def _range_refusal(
    node: ir.Node, observed: Mapping[str, Observed], *, float_outputs: bool
) -> str | None:
    """Why a node cannot be int8, from what the calibration saw."""
    read = [value for value in node.inputs if value is not None and constant(value) is None]
    if node.op_type in JOINS:
        return _join_refusal(node, [observed.get(value.name or "") for value in read])
    if node.op_type not in _COMPUTE:
        return None
    made = [] if float_outputs and node.op_type in FLOAT_OUTPUT else list(node.outputs)
    behind = absorbed([user for value in made for user in value.consumers()])
    replaced = {user.inputs[0]: user.outputs[0] for user in behind}
    for value in [*read, *made]:
        name = value.name or ""
        seen = observed.get(name) or observed.get(replaced.get(value, value).name or "")
        producer = value.producer()
        if seen is None and producer is not None and producer.op_type in SAME_SCALE:
            continue
        if seen is None:
            return "no sample gave it float32 values"
        if not seen.finite or max(abs(seen.minimum), abs(seen.maximum)) > _MASK:
            return f"{name} holds infinite or huge values"
    return None


def _join_refusal(node: ir.Node, seen: Sequence[Observed | None]) -> str | None:
    spans = [max(abs(one.minimum), abs(one.maximum)) for one in seen if one is not None]
    if any(not one.finite for one in seen if one is not None) or max(spans, default=0) > _MASK:
        return "it joins infinite or huge values"
    if any(one.minimum == one.maximum for one in seen if one is not None):
        return "one of its inputs was constant over all samples"
    ratio = _CONCAT_RATIO if node.op_type == "Concat" else _SUM_RATIO
    if node.op_type != "Mul" and len(spans) > 1 and max(spans) > ratio * min(spans):
        return f"the ranges of its inputs differ by more than {ratio}x"
    return None


def _derived(value: ir.Value, chosen: Set[ir.Node]) -> bool:
    """Whether a tensor takes its scale from the input of the chosen node that makes it."""
    producer = value.producer()
    return producer is not None and producer in chosen and producer.op_type in SAME_SCALE


def _touches_quantized(node: ir.Node) -> bool:
    before = [value.producer() for value in node.inputs if value is not None]
    after = [user for value in node.outputs for user in value.consumers()]
    return any(other is not None and other.op_type in _QUANTIZED for other in (*before, *after))


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
        layer = node.op_type in (*_COMPUTE, "ConvTranspose", "LSTM", "GRU")
        if layer and node.graph is not model.graph:
            choice.reasons[node.name or ""] = "it is inside a body of If or Loop"
