"""The float constants that a model spends its bytes on, wherever they are kept."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from worker.compression import graph

# Operators that multiply by a weight or look one up, and the inputs that hold it.
ROLES: dict[str, tuple[int, ...]] = {
    **graph.WEIGHT_INPUTS,
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "RNN": (1, 2),
    "Gather": (0,),
    "Einsum": (0, 1, 2),
}
# Smaller constants are shapes, limits and biases; what they would save, their decoding costs.
_LEAST_SIZE = 512
_FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16}
_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"}


@dataclass(frozen=True, eq=False)
class Parameter:
    """A float initializer and its readers: (node, input), seen through what is constant too.

    `returned`: a body gives it out as it is, so who reads it is not known.
    """

    value: ir.Value
    readers: tuple[tuple[ir.Node, int], ...]
    returned: bool

    @property
    def name(self) -> str:
        return self.value.name or ""

    @property
    def tensor(self) -> ir.TensorProtocol:
        tensor = self.value.const_value
        if tensor is None:
            raise ValueError(f"{self.name} is not constant")
        return tensor

    @property
    def ops(self) -> set[str]:
        return {node.op_type for node, _ in self.readers}

    @property
    def is_weight(self) -> bool:
        """Whether all that reads it multiplies by it or looks it up."""
        rank = len(self.tensor.shape)
        return (
            rank > 1
            and bool(self.readers)
            and not self.returned
            and all(
                not node.domain and index in ROLES.get(node.op_type, ())
                for node, index in self.readers
            )
        )

    def array(self) -> np.ndarray:
        """The values as float32."""
        return self.tensor.numpy().astype(np.float32)


def parameters(model: ir.Model) -> list[Parameter]:
    """Every float constant worth storing in another way, each once.

    Constant nodes become initializers, and functions are inlined.
    """
    for step in (
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=_LEAST_SIZE),
        common.RemoveInitializersFromInputsPass(),
    ):
        step(model)
    graph.renewed(model)
    derived = _derived(model)
    found = []
    for part in model.graphs():
        for value in part.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.dtype not in _FLOATS or tensor.size < _LEAST_SIZE:
                continue
            if not value.is_graph_output() and value.uses():
                found.append(_parameter(value, derived))
    return found


def _parameter(value: ir.Value, derived: set[ir.Value]) -> Parameter:
    readers: dict[tuple[ir.Node, int], None] = {}
    returned = False
    seen, waiting = {value}, [value]
    while waiting:
        current = waiting.pop()
        returned = returned or current.is_graph_output()
        for use in current.uses():
            further = [made for made in use.node.outputs if made in derived]
            if not further:
                readers[use.node, use.idx] = None
            waiting += [made for made in further if made not in seen]
            seen.update(further)
    return Parameter(value, tuple(readers), returned)


def _derived(model: ir.Model) -> set[ir.Value]:
    """What follows from constants alone, so that ONNX Runtime computes it at load."""
    derived: set[ir.Value] = set()
    for node in model.graph.all_nodes():
        if not node.domain and node.op_type not in _RANDOM and all(_known(node, derived)):
            derived.update(node.outputs)
    return derived


def _known(node: ir.Node, derived: set[ir.Value]) -> Iterator[bool]:
    yield bool(node.inputs)
    yield not any(a.type in _BODIES for a in node.attributes.values())
    for value in node.inputs:
        yield value is None or value in derived or graph.constant(value) is not None


_BODIES = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
