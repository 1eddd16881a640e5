"""Ids that index a table: those outside of it fail, or count from its end."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.errors import InvalidData

_LOOKED_AT = 32
_PASSED_ON = ("Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")


def check_tokens(model: Path, samples: CalibrationSet) -> None:
    """Compare ids with the rows of the tables that they index, in the first 32 samples.

    Raises:
        InvalidData: an id is outside of its table.
    """
    tables = dict(_tables(graph.load(model)))
    for index in range(min(len(samples), _LOOKED_AT) if tables else 0):
        for name, rows in tables.items():
            ids = samples[index].get(name)
            if ids is None or ids.dtype.kind not in "iu" or not ids.size:
                continue
            low, high = int(ids.min()), int(ids.max())
            if low < -rows or high >= rows or (low < 0 and _is_wide(ids)):
                raise _outside(name, index, high if high >= rows else low, rows)


def _is_wide(ids: np.ndarray) -> bool:
    """A lone -1 may mean the last row; ids of tokens never count from the end."""
    return ids.size > 1


def _outside(name: str, index: int, value: int, rows: int) -> InvalidData:
    return InvalidData(
        f"sample {index}: {name!r} holds the id {value}, but the model knows 0 to {rows - 1}",
        hint="use the tokenizer that belongs to this model",
        code="token_out_of_range",
    )


def _tables(model: ir.Model) -> Iterator[tuple[str, int]]:
    """Inputs that index the first axis of a constant table, with its number of rows."""
    inputs = set(model.graph.inputs)
    for node in model.graph:
        if node.op_type != "Gather" or node.attributes.get_int("axis", 0) != 0:
            continue
        table = graph.constant(node.inputs[0])
        source = _source(node.inputs[1])
        if table is None or len(table.shape) != 2 or source not in inputs:
            continue
        yield source.name or "", int(table.shape.numpy()[0])


def _source(value: ir.Value | None) -> ir.Value | None:
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in _PASSED_ON:
            return None
        value = node.inputs[0]
    return value
