"""MatMul, Gemm and Conv as products of integers."""

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.compression.graph import constant
from worker.compression.quantization.folding import folded
from worker.compression.quantization.steps import Steps

_FLOAT = {"to": int(ir.DataType.FLOAT)}
# What four more nodes take in a file, in weights.
_LEAST_SIZE = 256


@dataclass(frozen=True, eq=False)
class Product:
    """A layer; its weight is (..., inputs, outputs), or that of a Conv as it is.

    `bias` is constant and has beta in it; `added` is a bias that is computed, times `beta`.
    """

    node: ir.Node
    weight: np.ndarray
    bias: np.ndarray | None = None
    added: ir.Value | None = None
    beta: float = 1.0

    @property
    def weights(self) -> tuple[np.ndarray, ...]:
        return (self.weight,)

    @property
    def _is_conv(self) -> bool:
        return self.node.op_type == "Conv"

    def write(self, steps: Steps) -> None:
        node = self.node
        values, scale, zero = steps.quantized(node, self._activation(steps))
        name = node.inputs[1].name or "" if node.inputs[1] is not None else ""
        axis = 0 if self._is_conv else 1 if self.weight.ndim == 2 else None
        rounded, scales = steps.rounded(self.weight, axis)
        weight = steps.held(name, "_quantized", rounded)
        made = steps.before(
            node,
            "ConvInteger" if self._is_conv else "MatMulInteger",
            [values, weight, zero],
            dict(node.attributes) if self._is_conv else None,
            name=f"{node.name}_quant",
        )
        made = steps.before(node, "Cast", [made], _FLOAT)
        held = steps.held(name, "_scale", self._along_channels(scales))
        both = steps.before(node, "Mul", [scale, held], name=f"{node.name}_scales")
        made = steps.before(node, "Mul", [made, both])
        steps.replace(node, [self._biased(steps, made)])

    def _activation(self, steps: Steps) -> ir.Value:
        value = self.node.inputs[0]
        if value is None:
            raise ValueError(f"{self.node.name} has no input")
        turned = self.node.attributes.get_int("transA", 0)
        if self.node.op_type == "Gemm" and turned:
            return steps.before(self.node, "Transpose", [value])
        return value

    def _along_channels(self, array: np.ndarray) -> np.ndarray:
        """Values by output channel, shaped to broadcast over the output."""
        if not self._is_conv or array.ndim == 0:
            return array
        return array.reshape(-1, *(1,) * (self.weight.ndim - 2))

    def _biased(self, steps: Steps, made: ir.Value) -> ir.Value:
        if self.bias is not None:
            bias = self._along_channels(self.bias)
            return steps.before(
                self.node, "Add", [made, steps.held(f"{self.node.name}_bias", "", bias)]
            )
        if self.added is None:
            return made
        added = self.added
        if self.beta != 1:
            factor = steps.held(f"{self.node.name}_beta", "", np.array(self.beta, np.float32))
            added = steps.before(self.node, "Mul", [added, factor], name=f"{self.node.name}_c")
        return steps.before(self.node, "Add", [made, added])


def product_of(node: ir.Node, opset: int) -> Product | str:
    """A MatMul, Gemm or Conv as integers can compute it, or why they cannot."""
    if constant(node.inputs[0]) is not None:
        return "its first input is constant, and dynamic int8 has weights on the right only"
    weight = folded(node.inputs[1], opset=opset)
    if weight is None:
        return "its weight is computed, not constant"
    if weight.dtype != np.float32:
        return "its weight is not float32"
    if weight.ndim < 2:
        return "its weight is a vector"
    if weight.size < _LEAST_SIZE:
        return f"its weight has fewer than {_LEAST_SIZE} values"
    match node.op_type:
        case "Gemm":
            return _gemm(node, weight, opset)
        case "Conv":
            return _with_bias(node, weight, node.inputs[2] if len(node.inputs) > 2 else None)
        case _:
            return Product(node, weight)


def _gemm(node: ir.Node, weight: np.ndarray, opset: int) -> Product:
    if node.attributes.get_int("transB", 0):
        weight = weight.T
    weight = weight * np.float32(node.attributes.get_float("alpha", 1.0))
    beta = node.attributes.get_float("beta", 1.0)
    added = node.inputs[2] if len(node.inputs) > 2 else None
    bias = None if added is None else folded(added, opset=opset)
    if bias is None:
        return Product(node, weight, added=added, beta=beta)
    if bias.size == weight.shape[1] and bias.shape[-1:] == weight.shape[1:]:
        bias = bias.ravel()  # as ONNX Runtime's fusion takes it
    return Product(node, weight, bias=bias * np.float32(beta))


def _with_bias(node: ir.Node, weight: np.ndarray, added: ir.Value | None) -> Product | str:
    tensor = constant(added)
    if added is not None and tensor is None:
        return "its bias is computed, not constant"
    return Product(node, weight, bias=None if tensor is None else tensor.numpy())
