"""What a model is, before anything is done to it."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from worker.compression import graph
from worker.compression.calibration import synthetic
from worker.compression.errors import InvalidModel, first_line
from worker.compression.fidelity import OutputKind, output_kinds
from worker.compression.preflight import Preflight, preflight


class Port(BaseModel):
    """An input or output: axes are numbers, or names (or null) where they are free."""

    model_config = ConfigDict(frozen=True)

    name: str
    dtype: str
    shape: list[int | str | None]
    kind: OutputKind | None = None


class WeightInfo(BaseModel):
    """A weight under the names that `include`, `exclude` and `keep_float` match."""

    model_config = ConfigDict(frozen=True)

    name: str
    nodes: list[str]
    op: str
    shape: list[int]
    sparsity: float


class Inspection(BaseModel):
    """What `modelpress inspect` shows."""

    model_config = ConfigDict(frozen=True)

    bytes: int
    opset: int
    parameters: int
    nonzero_parameters: int
    ops: dict[str, int]
    inputs: list[Port]
    outputs: list[Port]
    weights: list[WeightInfo]
    quantized: bool
    notes: list[str]
    preflight: Preflight | None = None


QUANTIZED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "MatMulInteger",
    "MatMulNBits",
)


def inspect(path: Path | str) -> Inspection:
    """Read an ONNX model and say what it holds.

    Raises:
        InvalidModel: it cannot be read, or ONNX Runtime refuses it.
    """
    path = Path(path)
    model = graph.load(path)
    try:
        graph.session(path)
    except InvalidModel:
        raise
    except Exception as error:
        raise InvalidModel(f"ONNX Runtime refuses the model: {first_line(error)}") from error
    kinds = output_kinds(model, {})
    every, nonzero = graph.parameters(model)
    ops = graph.op_counts(model)
    expected = _preflight(path)
    weights = [_weight(weight) for weight in graph.weights(model)]
    return Inspection(
        bytes=graph.file_bytes(path),
        opset=graph.opset(model),
        parameters=every,
        nonzero_parameters=nonzero,
        ops=ops,
        inputs=[_port(spec, None) for spec in graph.inputs(model)],
        outputs=[_port(spec, kinds.get(spec.name)) for spec in graph.outputs(model)],
        weights=weights,
        quantized=any(op in ops for op in QUANTIZED),
        notes=_notes(ops, len(weights), expected),
        preflight=expected,
    )


def _preflight(path: Path) -> Preflight | None:
    """Expectations from synthetic inputs; None where the model does not run on such."""
    try:
        feed = synthetic(graph.inputs(path), seed=0, count=1)[0]
        return preflight(path, feed, samples=0)
    except MemoryError:
        raise
    except Exception:  # whatever ONNX Runtime makes of inputs that nobody chose
        return None


def _port(spec: graph.InputSpec, kind: OutputKind | None) -> Port:
    return Port(name=spec.name, dtype=spec.dtype.name, shape=list(spec.shape), kind=kind)


def _weight(weight: graph.Weight) -> WeightInfo:
    values = weight.array()
    zeros = weight.size - int((values != 0).sum())
    return WeightInfo(
        name=weight.name,
        nodes=[node.name or "" for node in weight.nodes],
        op=weight.op,
        shape=list(values.shape),
        sparsity=round(zeros / max(weight.size, 1), 6),
    )


def _notes(ops: dict[str, int], weights: int, expected: Preflight | None) -> list[str]:
    notes = []
    if any(op in ops for op in QUANTIZED):
        notes.append("already quantized, at least in part: what is int8 is left alone")
    if not weights:
        notes.append("no float weights were found that pruning or int8 could work on")
    if expected is None:
        notes.append("it does not run on made-up inputs: what to expect, samples will tell")
    return notes
