"""What a model holds and what it computes, in numbers."""

import json
import math
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from worker.compression.graph.files import load, save
from worker.compression.graph.sessions import session
from worker.compression.graph.weights import constant

Shapes = Sequence[Sequence[int]]

_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}
# Operators with quantized weights: the input that holds them, and the input of its zero point.
_QUANTIZED_INPUTS = {
    "DequantizeLinear": ((0, 2),),
    "QLinearConv": ((3, 5), (8, None)),
    "QLinearMatMul": ((0, 2), (3, 5)),
    "QGemm": ((3, 5), (6, None)),
    "ConvInteger": ((1, 3),),
    "MatMulInteger": ((1, 3),),
    "MatMulIntegerToFloat": ((1, 5),),
    "DynamicQuantizeMatMul": ((1, 3),),
    "DynamicQuantizeLSTM": ((1, None), (2, None)),
}
_PARAMETER_INPUTS = {
    "DequantizeLinear": (1, 2),
    "QuantizeLinear": (1, 2),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
    "QGemm": (1, 2, 4, 5, 7, 8),
    "MatMulIntegerToFloat": (2, 3, 4, 5),
    "DynamicQuantizeMatMul": (2, 3),
    "DynamicQuantizeLSTM": (8, 9, 10, 11),
}


def op_counts(model: ir.Model) -> dict[str, int]:
    """Nodes by operator, bodies of If and Loop included, most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.all_nodes()).most_common())


def parameters(model: ir.Model) -> tuple[int, int]:
    """Number of parameters, and how many of them are not zero.

    Counts floating-point constants, and quantized ones where an operator reads them as data;
    scales, zero points and integers that steer the graph are none.
    """
    quantized, steering = _quantized_constants(model)
    total = nonzero = 0
    for value in _constants(model):
        tensor = constant(value)
        if tensor is None or value in steering:
            continue
        if value not in quantized and tensor.dtype not in _FLOATS:
            continue
        total += tensor.size
        nonzero += _count_nonzero(tensor.numpy(), quantized.get(value))
    return total, nonzero


def macs(model_path: Path, feed: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Multiply-accumulates by node name in one inference, from the shapes of a real run.

    A node in the body of a Loop counts as often as it ran; one in a branch not taken is absent.
    """
    with tempfile.TemporaryDirectory(prefix="macs-") as folder:
        path = _with_unique_names(model_path, Path(folder))
        running = session(path, optimize=False, profile_prefix=Path(folder) / "profile")
        running.run(None, dict(feed))
        events = json.loads(Path(running.end_profiling()).read_text())
    counts: Counter[str] = Counter()
    for event in events:
        arguments = event.get("args", {})
        count = _MACS.get(arguments.get("op_name", ""))
        if count is None or not event["name"].endswith("_kernel_time"):
            continue
        name = event["name"].removesuffix("_kernel_time")
        counts[name] += count(_shapes(arguments, "input"), _shapes(arguments, "output"))
    return dict(counts)


def _with_unique_names(path: Path, folder: Path) -> Path:
    """The model itself, or a copy where nodes without a name of their own have got one."""
    model = load(path)
    names = [node.name for node in model.graph.all_nodes()]
    if all(names) and len(set(names)) == len(names):
        return path.resolve()
    name_nodes(model)
    save(model, folder / "named.onnx")
    return folder / "named.onnx"


def name_nodes(model: ir.Model) -> None:
    """Give every node that has no name of its own a unique one."""
    taken: set[str] = set()
    for position, node in enumerate(model.graph.all_nodes()):
        name = node.name or f"{node.op_type}_{position}"
        while name in taken:
            name = f"{name}_{position}"
        taken.add(name)
        node.name = name


def _constants(model: ir.Model) -> list[ir.Value]:
    held = [value for graph in model.graphs() for value in graph.initializers.values()]
    made = [node.outputs[0] for node in model.graph.all_nodes() if node.op_type == "Constant"]
    return held + made


def _quantized_constants(
    model: ir.Model,
) -> tuple[dict[ir.Value, tuple[ir.Value | None, int]], set[ir.Value]]:
    """Constants read as quantized data (with zero point, axis), and those that steer."""
    quantized: dict[ir.Value, tuple[ir.Value | None, int]] = {}
    steering: set[ir.Value] = set()
    for node in model.graph.all_nodes():
        codes = node.inputs[0] if node.op_type == "Cast" else None
        if codes is not None and codes.dtype == ir.DataType.INT8 and constant(codes):
            quantized[codes] = (
                None,
                0,
            )  # given back by Cast and Mul, as weight_quantization does
        for index in _PARAMETER_INPUTS.get(node.op_type, ()):
            steering |= {value for value in node.inputs[index : index + 1] if value is not None}
        for index, zero_index in _QUANTIZED_INPUTS.get(node.op_type, ()):
            if index >= len(node.inputs) or constant(node.inputs[index]) is None:
                continue
            zero = (
                node.inputs[zero_index]
                if zero_index is not None and zero_index < len(node.inputs)
                else None
            )
            axis = node.attributes.get_int("axis", 0 if node.op_type == "QLinearConv" else 1)
            data = node.inputs[index]
            if data is not None:
                quantized[data] = (zero, axis)
    return quantized, steering


def _count_nonzero(array: np.ndarray, zero: tuple[ir.Value | None, int] | None) -> int:
    tensor = None if zero is None else constant(zero[0])
    if zero is None or tensor is None or not np.any(tensor.numpy()):
        return int(np.count_nonzero(array))
    point = tensor.numpy()
    if point.ndim == 1 and point.size > 1:
        shape = [1] * array.ndim
        shape[zero[1]] = point.size
        point = point.reshape(shape)
    return int(np.count_nonzero(array != point))


def _shapes(arguments: Mapping[str, Any], side: str) -> Shapes:
    return [shape for entry in arguments[f"{side}_type_shape"] for shape in entry.values()]


def _conv(given: Shapes, made: Shapes, *, weight: int = 1) -> int:
    return math.prod(made[0]) * math.prod(given[weight][1:])


def _conv_transpose(given: Shapes, made: Shapes) -> int:
    return math.prod(given[0]) * math.prod(given[1][1:])


def _matmul(given: Shapes, made: Shapes) -> int:
    return math.prod(made[0]) * given[0][-1]


def _gemm(given: Shapes, made: Shapes) -> int:
    return math.prod(made[0]) * math.prod(given[0]) // max(1, made[0][0])


def _recurrent(given: Shapes, made: Shapes) -> int:
    steps = given[0][0] * given[0][1]
    return steps * (math.prod(given[1]) + math.prod(given[2]))


_MACS: dict[str, Callable[[Shapes, Shapes], int]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": lambda given, made: _conv(given, made, weight=3),
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "DynamicQuantizeMatMul": _matmul,
    "Gemm": _gemm,
    "QGemm": _gemm,
    "LSTM": _recurrent,
    "DynamicQuantizeLSTM": _recurrent,
    "GRU": _recurrent,
}
