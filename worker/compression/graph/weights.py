"""The weights that compression works on, wherever an exporter has put them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

# Operators that carry weights, and the inputs that may hold them.
WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (1, 0),
    "MatMul": (1, 0),
    "LSTM": (1, 2),
    "GRU": (1, 2),
}
# What may stand between a weight and its consumer without making it an activation.
PASSED_THROUGH = {
    "Identity",
    "Transpose",
    "Reshape",
    "Cast",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
}
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}


@dataclass(frozen=True)
class Use:
    """One consumer: `node` reads the weight at input `index`, after the nodes of `path`."""

    node: ir.Node
    index: int
    path: tuple[ir.Node, ...]

    def arranged(self, array: np.ndarray) -> np.ndarray:
        """An array of the weight's shape as the consumer sees it."""
        for step in self.path:
            array = _arrange(array, step)
        return array

    @property
    def reduction_axis(self) -> int:
        """The axis, of the arranged weight, that the consumer sums over."""
        match self.node.op_type:
            case "Conv":
                return 1
            case "ConvTranspose":
                return 0
            case "Gemm":
                transposed = self.node.attributes.get_int(
                    "transB" if self.index else "transA", 0
                )
                return transposed if self.index else 1 - transposed
            case "MatMul" if self.index:
                return -2
            case _:
                return -1


@dataclass(frozen=True, eq=False)
class Weight:
    """A floating-point weight: an initializer, or the output of a Constant node.

    A shared weight is one Weight with several uses.
    """

    value: ir.Value
    uses: tuple[Use, ...]

    @property
    def name(self) -> str:
        return self.value.name or ""

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        return tuple(use.node for use in self.uses)

    @property
    def op(self) -> str:
        return self.uses[0].node.op_type

    @property
    def size(self) -> int:
        return self._tensor().size

    def array(self) -> np.ndarray:
        """The values; read-only where they are memory-mapped."""
        return self._tensor().numpy()

    def replace(self, array: np.ndarray) -> None:
        """Put other values of the same shape in its place; the type of the weight is kept."""
        old = self._tensor()
        values = array.astype(old.dtype.numpy(), copy=False)
        tensor = ir.Tensor(values, dtype=old.dtype, name=self.name)
        producer = self.value.producer()
        if producer is None:
            self.value.const_value = tensor
            return
        producer.attributes.clear()
        producer.attributes["value"] = ir.AttrTensor("value", tensor)

    def _tensor(self) -> ir.TensorProtocol:
        tensor = constant(self.value)
        if tensor is None:
            raise ValueError(f"{self.name} is not constant")
        return tensor


def weights(model: ir.Model) -> list[Weight]:
    """Floating-point weights of Conv, ConvTranspose, Gemm, MatMul, LSTM and GRU, each once.

    Found through Constant nodes, through Identity, Transpose, Reshape and Cast of a constant,
    and inside If and Loop bodies. Initializers come in the order of the file, which for an
    exported torch module is the order of its parameters.
    """
    found: dict[ir.Value, list[Use]] = {}
    for node in model.graph.all_nodes():
        for use, source in _uses(node):
            found.setdefault(source, []).append(use)
    order = _file_order(model)
    sources = sorted(found, key=lambda value: order.get(value, len(order)))
    return [Weight(value, tuple(found[value])) for value in sources]


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a Constant node; None for an activation."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant" or len(producer.attributes) != 1:
        return None
    return ir.convenience.get_const_tensor(value)


def source_of(value: ir.Value | None) -> tuple[ir.Value, tuple[ir.Node, ...]] | None:
    """The constant behind a value and the nodes from there to it; None for an activation."""
    path: list[ir.Node] = []
    while value is not None:
        if constant(value) is not None:
            return value, tuple(reversed(path))
        node = value.producer()
        if node is None or node.domain or node.op_type not in PASSED_THROUGH:
            return None
        if any(other is not None and constant(other) is None for other in node.inputs[1:]):
            return None
        path.append(node)
        value = node.inputs[0]
    return None


def _uses(node: ir.Node) -> Iterator[tuple[Use, ir.Value]]:
    """Weights that one node reads."""
    if node.domain not in ("", "ai.onnx"):
        return
    for index in WEIGHT_INPUTS.get(node.op_type, ()):
        source = source_of(node.inputs[index]) if index < len(node.inputs) else None
        tensor = None if source is None else constant(source[0])
        if source is None or tensor is None or tensor.dtype not in _FLOATS or tensor.size == 0:
            continue
        yield Use(node, index, source[1]), source[0]
        if node.op_type in ("Gemm", "MatMul"):
            return


def _file_order(model: ir.Model) -> dict[ir.Value, int]:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return {value: position for position, value in enumerate(values)}


def _arrange(array: np.ndarray, step: ir.Node) -> np.ndarray:
    match step.op_type:
        case "Transpose":
            return array.transpose(step.attributes.get_ints("perm", None))
        case "Flatten":
            axis = step.attributes.get_int("axis", 1)
            return array.reshape(int(np.prod(array.shape[:axis])), -1)
        case "Reshape" | "Squeeze" | "Unsqueeze":
            return _reshaped(array, step)
        case _:
            return array


def _reshaped(array: np.ndarray, step: ir.Node) -> np.ndarray:
    given = constant(step.inputs[1]) if len(step.inputs) > 1 else None
    values = None if given is None else [int(number) for number in given.numpy().ravel()]
    if step.op_type == "Reshape":
        keep = not step.attributes.get_int("allowzero", 0)
        target = [
            array.shape[axis] if size == 0 and keep else size
            for axis, size in enumerate(values or [])
        ]
        return array.reshape(target)
    axes = step.attributes.get_ints("axes", None) if values is None else values
    if step.op_type == "Unsqueeze":
        return np.expand_dims(array, tuple(axes or ()))
    return np.squeeze(array, None if axes is None else tuple(axes))
