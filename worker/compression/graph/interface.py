"""What a model takes and gives."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression.errors import InvalidModel
from worker.compression.graph.files import load

_INITIALIZERS_ARE_NO_INPUTS = 4
_MOST_AXES = 64  # of numpy and of ONNX Runtime's kernels


@dataclass(frozen=True)
class InputSpec:
    """One input or output. A `shape` axis is a size, a symbol, or None where nothing is known.

    `ranked` is False where the model does not say how many axes there are; `shape` is then ().
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | str | None, ...]
    ranked: bool = True


def inputs(model: ir.Model | Path) -> list[InputSpec]:
    """Graph inputs without those that are initializers."""
    graph = _open(model).graph
    return [_spec(value) for value in graph.inputs if not value.is_initializer()]


def outputs(model: ir.Model | Path) -> list[InputSpec]:
    """Graph outputs."""
    return [_spec(value) for value in _open(model).graph.outputs]


def opset(model: ir.Model) -> int:
    """Version of the standard operator set."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 1))


def renewed(model: ir.Model) -> ir.Model:
    """An IR version in which initializers need not be inputs: those before it are from 2018."""
    model.ir_version = max(model.ir_version, _INITIALIZERS_ARE_NO_INPUTS)
    return model


def _open(model: ir.Model | Path) -> ir.Model:
    return load(model) if isinstance(model, Path) else model


def _spec(value: ir.Value) -> InputSpec:
    name = value.name or ""
    if not isinstance(value.type, ir.TensorType):
        raise InvalidModel(
            f"{name!r} is not a tensor but {value.type}",
            hint="only models whose inputs and outputs are tensors can be compressed",
        )
    shape = value.shape
    if shape is not None and len(shape) > _MOST_AXES:
        raise InvalidModel(
            f"{name[:100]!r} has {len(shape)} axes: at most {_MOST_AXES} can be computed with",
            hint="export the model again with inputs and outputs of fewer axes",
        )
    axes = () if shape is None else tuple(_axis(axis) for axis in shape)
    return InputSpec(name, np.dtype(value.type.dtype.numpy()), axes, ranked=shape is not None)


def _axis(axis: int | ir.SymbolicDim) -> int | str | None:
    if isinstance(axis, int):
        return axis if axis >= 0 else None  # old exporters write -1 for a free axis
    return axis.value


def free_name(graph: ir.Graph, wanted: str) -> str:
    """The wanted name for a new tensor, or one made from it that no tensor bears."""
    taken = {value.name for value in graph.inputs} | set(graph.initializers)
    for node in graph.all_nodes():
        taken.update(value.name for value in node.outputs)
    while not wanted or wanted in taken:
        wanted += "_"
    return wanted
