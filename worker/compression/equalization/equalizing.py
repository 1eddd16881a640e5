"""The whole way: find groups, look at the samples, scale, and prove that nothing changed."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.cleaning import constants_lifted, shapes_inferred
from worker.compression.cleaning.equivalence import difference, run_all
from worker.compression.equalization.applying import scale
from worker.compression.equalization.finding import groups, readings
from worker.compression.equalization.groups import Group
from worker.compression.equalization.scales import scales
from worker.compression.equalization.statistics import observed

# Samples on which the scaled model is compared with the one given.
_PROOFS = 4


@dataclass(frozen=True)
class Equalized:
    """The model, and how many groups of tensors were scaled; or why none was."""

    model: ir.Model
    scaled: int
    reason: str = ""


def equalize(
    model: ir.Model,
    wanted: Callable[[Group], bool],
    samples: CalibrationSet,
    folder: Path,
    *,
    alpha: float | None = None,
    threads: int = 1,
) -> Equalized:
    """Scale the wanted groups where int8 gains by it; the model given is used up.

    The outputs of samples must stay what they were up to rounding, or nothing is scaled.
    """
    model = constants_lifted(model)
    graph.name_nodes(model)
    model = shapes_inferred(model)
    path = folder / "unequalized.onnx"
    graph.save(model, path)
    found = [group for group in (*groups(model), *readings(model)) if wanted(group)]
    scaled = 0
    for group, seen in observed(path, found, samples, threads=threads).items():
        factors = scales(group, seen, alpha)
        if factors is not None:
            scale(model, group, factors)
            scaled += 1
    if not scaled:
        return Equalized(graph.load(path), 0, "no tensors between layers gain by it")
    after = folder / "equalized.onnx"
    graph.save(model, after)
    feeds = [samples[place] for place in range(min(_PROOFS, len(samples)))]
    differs = difference(run_all(path, feeds), run_all(after, feeds))
    graph.remove(after)
    if differs is not None:
        return Equalized(graph.load(path), 0, f"scaled, {differs}")
    return Equalized(model, scaled)
