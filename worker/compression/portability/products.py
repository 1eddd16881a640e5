"""The products of uint8 activations and int8 weights in a model, as its kernels read them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from worker.compression.graph import constant
from worker.compression.portability.windows import Window, window_of

# Operators of integers: the input with the activations and its zero point, and the weight's.
_INTEGER = {
    "QLinearConv": (0, 2, 3),
    "QLinearMatMul": (0, 2, 3),
    "QGemm": (0, 2, 3),
    "MatMulInteger": (0, 2, 1),
    "MatMulIntegerToFloat": (0, 4, 1),
}
_FLOAT = ("Conv", "Gemm", "MatMul")
_LSTM = "DynamicQuantizeLSTM"


@dataclass(frozen=True, eq=False)
class Product:
    """One layer. `tap` is its uint8 tensor; None where no run can show it: in a body, an LSTM.

    `weights`: (inputs, outputs) for each group, inputs in the order in which they are paired.
    `window` says which activations a Conv multiplies; `turned`, that rows are columns.
    """

    name: str
    weights: tuple[npt.NDArray[np.int8], ...]
    tap: str | None
    zero_point: int = 0
    window: Window | None = None
    turned: bool = False


def products(model: ir.Model) -> Iterator[Product]:
    """Every layer that ONNX Runtime multiplies as uint8 times int8.

    Depthwise convolutions are none: their kernel adds in 32 bits on every CPU.
    """
    for node in model.graph.all_nodes():
        found = _product(node, tapped=node.graph is model.graph)
        if found is not None:
            yield found


def _product(node: ir.Node, *, tapped: bool) -> Product | None:
    if node.op_type == _LSTM:
        return _recurrent(node)
    if node.op_type in _INTEGER:
        activation, zero, weight = (_input(node, index) for index in _INTEGER[node.op_type])
    elif node.op_type in _FLOAT:
        activation, zero = _dequantized(_input(node, 0))
        weight, _ = _dequantized(_input(node, 1))
    else:
        return None
    tensor = constant(weight)
    point = constant(zero)
    unsigned = point is not None and point.dtype == ir.DataType.UINT8
    unsigned |= zero is not None and zero.producer() is not None  # DynamicQuantizeLinear's
    if activation is None or tensor is None or not unsigned:
        return None
    if tensor.dtype != ir.DataType.INT8 or constant(activation) is not None:
        return None
    return _made(
        node,
        tensor.numpy(),
        activation.name if tapped else None,
        0 if point is None else int(point.numpy().ravel()[0]),
    )


def _made(node: ir.Node, weight: np.ndarray, tap: str | None, zero: int) -> Product | None:
    name = (node.name or "").removesuffix("_quant")
    if "Conv" in node.op_type:
        window = window_of(node, weight.shape)
        if window.depthwise:
            return None
        return Product(name, window.matrices(weight), tap, zero, window)
    if node.attributes.get_int("transB", 0):
        weight = weight.T
    if weight.ndim == 1:
        weight = weight[:, None]
    if weight.ndim != 2:
        # Stacked products: each is bounded by itself, and none is simulated.
        return Product(name, tuple(weight.reshape(-1, *weight.shape[-2:])), None)
    turned = bool(node.attributes.get_int("transA", 0))
    return Product(name, (weight,), tap, zero, turned=turned)


def _recurrent(node: ir.Node) -> Product | None:
    held = [constant(_input(node, index)) for index in (1, 2)]
    weights = [
        part
        for tensor in held
        if tensor is not None and tensor.dtype == ir.DataType.INT8
        for part in tensor.numpy()
    ]
    name = (node.name or "").removesuffix("_quant")
    return Product(name, tuple(weights), None) if weights else None


def _dequantized(value: ir.Value | None) -> tuple[ir.Value | None, ir.Value | None]:
    """The integers behind a DequantizeLinear, and their zero point."""
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return None, None
    return producer.inputs[0], _input(producer, 2)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None
