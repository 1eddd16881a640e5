"""What ONNX Runtime's int8 kernels on the CPU can do."""

from collections.abc import Sequence, Set

import onnx_ir as ir

# Operators with an int8 kernel in ONNX Runtime on CPU, or that pass int8 through.
COMPUTE = ("Conv", "Gemm", "MatMul")
LOOKUP = ("Gather",)
JOINS = ("Add", "Mul", "Concat")
_SINGLE = ("GlobalAveragePool", "AveragePool", "Sigmoid", "LeakyRelu", "Relu", "Clip")
_MOVES = (
    "MaxPool", "Resize", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice",
    "Split",
)  # fmt: skip
INT8_OPS = (*COMPUTE, *LOOKUP, *JOINS, *_SINGLE, *_MOVES)
DEFAULT_OPS = INT8_OPS

# Operators that carry weights or work: for each that stays float there is a reason.
LAYERS = (*COMPUTE, "ConvTranspose", "LSTM", "GRU")
# Operators whose output has the scale of their input, so that it needs no range of its own.
SAME_SCALE = {*_MOVES, "AveragePool", "Gather"}
# Operators that vanish, because the range of their output clips as they do.
ABSORBED = {"Relu", "Clip"}
# Their int8 kernel needs no quantized output, behind Q and DQ and as an operator of integers.
FLOAT_OUTPUT = ("Gemm", "MatMul")
INTEGER_FLOAT_OUTPUT = ("MatMul",)
BIAS_INPUTS = {"Conv": 2, "Gemm": 2}
QUANTIZED = {
    "QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "QGemm",
    "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeLinear", "MatMulNBits",
}  # fmt: skip


def data_inputs(node: ir.Node) -> range:
    """Positions of the inputs that an int8 kernel reads as int8."""
    if node.op_type in COMPUTE:
        return range(2)
    return range(len(node.inputs)) if node.op_type in JOINS else range(1)


def scaled_by(value: ir.Value | None, chosen: Set[ir.Node]) -> ir.Value | None:
    """The tensor whose range gives a value its scale: what moves it there is int8."""
    while value is not None:
        producer = value.producer()
        if producer is None or producer not in chosen or producer.op_type not in SAME_SCALE:
            return value
        value = producer.inputs[0]
    return None


def absorbed(nodes: Sequence[ir.Node]) -> list[ir.Node]:
    """The Relu and Clip nodes that the range of their output stands for."""
    return [
        node
        for node in nodes
        if node.op_type in ABSORBED
        and node.inputs[0] is not None
        and len(node.inputs[0].uses()) == 1
        and not node.inputs[0].is_graph_output()
    ]
