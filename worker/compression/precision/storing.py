"""Store the weights of a model in fewer bits, as far as its outputs bear it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.precision.encoding import Half
from worker.compression.precision.parameters import Parameter, parameters
from worker.compression.precision.planning import Kind, Plan, plan, within
from worker.compression.precision.rounding import as_half
from worker.compression.precision.selection import chosen, tell
from worker.compression.precision.sensitivity import Sensitivity
from worker.compression.precision.writing import store

Progress = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class Storing:
    """What is asked for: `kind` of every weight, unless the outputs would fall below a bound.

    `ops`: only weights that these operators read; None for all constants.
    """

    method: str
    kind: Kind
    min_sqnr_db: float | None
    ops: frozenset[str] | None
    keep_float: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where it is done, and the samples on which the outputs are looked at."""

    samples: CalibrationSet
    workdir: Path
    threads: int
    progress: Progress


def store_weights(model: ir.Model, asked: Storing, around: Surroundings) -> ir.Model:
    """Store weights in another form, in place; the reasons of the others stay with the model.

    Raises:
        InvalidRecipe: a pattern in `keep_float` matches nothing.
    """
    graph.name_nodes(model)
    wanted = chosen(model, parameters(model), ops=asked.ops, keep_float=asked.keep_float)
    made = _planned(model, wanted, asked, around)
    for parameter, encoding in made.encodings.items():
        store(parameter, encoding)
    tell(model, made, method=asked.method)
    return model


def store_halves(model: ir.Model) -> ir.Model:
    """Store as float16 what loses nothing by it: weights that a method had to widen."""
    for parameter in parameters(model):
        array = parameter.array()
        found = as_half(array)
        if isinstance(found, Half) and np.array_equal(found.decoded(), array):
            store(parameter, found)
    return model


def _planned(
    model: ir.Model, wanted: Sequence[Parameter], asked: Storing, around: Surroundings
) -> Plan:
    made = plan(wanted, asked.kind, progress=_part(around.progress, 0, 0.5))
    if asked.min_sqnr_db is None or not made.encodings or not len(around.samples):
        return made
    sensitivity = Sensitivity(
        model,
        list(made.encodings),
        around.samples,
        workdir=around.workdir,
        threads=around.threads,
    )
    budget = 10 ** (-asked.min_sqnr_db / 10)
    return within(made, budget, sensitivity.noise, progress=_part(around.progress, 0.5, 1))


def _part(progress: Progress, first: float, last: float) -> Progress:
    return lambda share, message: progress(first + (last - first) * share, message)
