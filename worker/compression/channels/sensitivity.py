"""How much an error at one group's consumers is felt at the outputs: one probe per group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.channels.criteria import Probe, Ranking
from worker.compression.channels.groups import Cut
from worker.compression.channels.moments import Array
from worker.compression.channels.observe import Observation
from worker.compression.channels.rewrite import mask
from worker.compression.channels.survey import Survey
from worker.compression.channels.trace import Feed, with_outputs

# Samples of one probe: as many as these multiply-accumulates of all probes allow, in limits.
_MACS_OF_PROBES = 200e9
_FEWEST_SAMPLES, _MOST_SAMPLES = 2, 16
_PROBES_PER_GROUP = 4
# What a local error counts for at least: a probe with few samples may miss an effect.
_LEAST = 1e-4

Outputs = list[list[np.ndarray]]


@dataclass(frozen=True)
class Felt:
    """What probes compare with: the original's outputs on a few samples."""

    survey: Survey
    observations: Mapping[str, Observation]
    feeds: Sequence[Feed]
    folder: Path
    threads: int

    @cached_property
    def reference(self) -> Outputs:
        return self._outputs(self.survey.model)

    def felt(self, ranking: Ranking) -> Ranking:
        """The ranking with errors at the outputs, measured at its probes and drawn between."""
        if not ranking.probes:
            return ranking
        places, measured = [0], [0.0]
        for probe in ranking.probes:
            gone = self.survey.structure.cut(ranking.order[: probe.units])
            error = output_error(self.reference, self._outputs(self._probed(probe, gone)))
            places.append(probe.units)
            measured.append(max(error, measured[-1]))
        return replace(ranking, errors=_drawn(ranking.errors, places, measured), probes=())

    def _probed(self, probe: Probe, gone: Cut) -> ir.Model:
        """The model with re-solved weights, zero for the units that are gone."""
        copy = mask(self.survey.model, self.survey.structure, gone)
        for node, matrix in probe.matrices.items():
            seen = self.observations[node]
            value = copy.graph.initializers[seen.layer.weight]
            weight = seen.layer.restored(matrix, seen.weight).astype(seen.weight.dtype)
            value.const_value = ir.Tensor(np.ascontiguousarray(weight), name=value.name)
            _shift(copy, seen, matrix)
        return copy

    def _outputs(self, model: ir.Model) -> Outputs:
        """Outputs, and what goes into those that squash it: there an error shows sooner."""
        path = self.folder / "probe.onnx"
        names = [value.name for value in model.graph.outputs if value.name]
        names += [name for value in model.graph.outputs if (name := _unsquashed(value))]
        graph.save(with_outputs(model, names), path)
        session = graph.session(path, threads=self.threads)
        return [session.run(names, dict(feed)) for feed in self.feeds]


def _drawn(local: Array, places: Sequence[int], measured: Sequence[float]) -> Array:
    """A curve through what was measured, shaped in between like the local errors."""
    rising = np.maximum.accumulate(local) + np.arange(len(local)) * np.finfo(np.float32).tiny
    curve = np.interp(rising, rising[list(places)], measured)
    last = places[-1]
    beyond = measured[-1] * rising[last:] / max(rising[last], np.finfo(np.float32).tiny)
    curve[last:] = np.maximum(beyond, measured[-1])
    # A ranking that is flat where nothing was felt still prefers to take less.
    made: Array = curve + rising * _LEAST
    return made


def probe_samples(macs: int, groups: int) -> int:
    """How many samples each probe runs on; counted, not timed: a rerun does the same."""
    affordable = _MACS_OF_PROBES / max(1, macs * groups * _PROBES_PER_GROUP)
    return int(np.clip(affordable, _FEWEST_SAMPLES, _MOST_SAMPLES))


def _unsquashed(output: ir.Value) -> str | None:
    node = output.producer()
    if node is None or node.op_type not in ("Softmax", "LogSoftmax", "Sigmoid"):
        return None
    value = node.inputs[0]
    return None if value is None or value.producer() is None else value.name


def output_error(reference: Outputs, found: Outputs) -> float:
    """Mean over outputs of the squared error relative to what varies of the output."""
    errors = []
    for index in range(len(reference[0])):
        a = np.concatenate([values[index].ravel() for values in reference]).astype(np.float64)
        b = np.concatenate([values[index].ravel() for values in found]).astype(np.float64)
        energy = float(np.square(a - a.mean()).sum()) or float(np.square(a).sum())
        if energy > 0:
            errors.append(float(np.square(a - b).sum()) / energy)
    return float(np.mean(errors)) if errors else 0.0


def _shift(model: ir.Model, seen: Observation, matrix: np.ndarray) -> None:
    """Let the bias carry the mean of what is gone, as the refit will."""
    bias = seen.layer.bias
    if bias is None:
        return
    value = model.graph.initializers[bias]
    if value.const_value is None:
        return
    lost = seen.layer.matrix(seen.weight) - matrix
    shift = np.einsum("gk,gkn->gn", seen.moments.means()[0], lost)
    old = value.const_value.numpy()
    if seen.layer.op == "ConvTranspose" or seen.layer.mode == "channel":
        taps = shift.size // old.size
        shift = shift.reshape(old.size, taps).sum(axis=1)
    array = (old.ravel() + shift.ravel()).reshape(old.shape).astype(old.dtype)
    value.const_value = ir.Tensor(array, name=value.name)
