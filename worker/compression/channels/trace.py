"""Real shapes, and the small integer tensors that steer a graph, from one run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from worker.compression import graph

Feed = Mapping[str, np.ndarray]
Shape = tuple[int, ...]

# Integer tensors up to this size are shapes, axes, sizes or indices worth keeping.
_STEERING_SIZE = 4096


@dataclass(frozen=True)
class Trace:
    """Shape by value name, and the values of steering tensors, of one run."""

    shapes: Mapping[str, Shape]
    values: Mapping[str, np.ndarray]


def trace(model: ir.Model, feed: Feed, folder: Path) -> Trace:
    """Run the model once, asking for every value of its main graph."""
    names = [
        value.name
        for node in model.graph
        for value in node.outputs
        if value.name and value.uses() and _is_tensor(value)
    ]
    arrays = run(model, [feed], [*names, *output_names(model)], folder)[0]
    shapes = {name: array.shape for name, array in arrays.items()}
    steering = {
        name: array
        for name, array in arrays.items()
        if array.dtype.kind == "i" and array.size <= _STEERING_SIZE
    }
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            shapes[name] = tuple(value.const_value.shape.numpy())
    shapes |= {name: np.shape(array) for name, array in feed.items()}
    return Trace(shapes, steering)


def run(
    model: ir.Model, feeds: Sequence[Feed], names: Sequence[str], folder: Path
) -> list[dict[str, np.ndarray]]:
    """Values by name of one inference per feed, inner ones included."""
    path = folder / "run.onnx"
    graph.save(with_outputs(model, names), path)
    wanted = list(dict.fromkeys(names))
    session = graph.session(path, optimize=False)
    quiet = ort.RunOptions()
    # A graph that is cut wrongly fails here: the caller tells why, the log need not.
    quiet.log_severity_level = 4
    return [
        dict(zip(wanted, session.run(wanted, dict(feed), quiet), strict=True)) for feed in feeds
    ]


def with_outputs(model: ir.Model, names: Iterable[str]) -> ir.Model:
    """A copy that also gives these inner values."""
    copy = model.clone()
    have = {value.name for value in copy.graph.outputs}
    for name, value in inner_values(copy).items():
        if name in names and name not in have:
            copy.graph.outputs.append(value)
    return copy


def inner_values(model: ir.Model) -> dict[str, ir.Value]:
    """Values that nodes of the main graph make, by name."""
    return {value.name: value for node in model.graph for value in node.outputs if value.name}


def output_names(model: ir.Model) -> list[str]:
    return [value.name for value in model.graph.outputs if value.name]


def _is_tensor(value: ir.Value) -> bool:
    return value.type is None or isinstance(value.type, ir.TensorType)
