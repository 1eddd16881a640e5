"""How much an error at one group's consumers is felt at the outputs: one probe per group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from worker.compression import graph
from worker.compression.channels.criteria import Probe, Ranking
from worker.compression.channels.groups import Cut
from worker.compression.channels.moments import Array
from worker.compression.channels.observe import Observation
from worker.compression.channels.rewrite import masked
from worker.compression.channels.survey import Survey
from worker.compression.channels.trace import Feed, with_outputs
from worker.compression.fidelity import is_written_softmax

# Samples of one probe: as many as these multiply-accumulates of all probes allow, in limits.
_MACS_OF_PROBES = 100e9
_FEWEST_SAMPLES, _MOST_SAMPLES = 2, 16
_PROBES_PER_GROUP = 3
# What a local error counts for at least: a probe with few samples may miss an effect.
_LEAST = 1e-4

Outputs = list[list[np.ndarray]]


@dataclass(frozen=True)
class Felt:
    """Probes of the original on a few samples, in one session that takes weights as inputs."""

    survey: Survey
    observations: Mapping[str, Observation]
    feeds: Sequence[Feed]
    folder: Path
    threads: int

    @cached_property
    def reference(self) -> Outputs:
        return self._outputs({})

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

    def _probed(self, probe: Probe, gone: Cut) -> Feed:
        """Re-solved weights, zero for the units that are gone, and biases that make up."""
        changed = dict(masked(self.survey.model, self.survey.structure, gone))
        for name, matrix in probe.matrices.items():
            seen = self.observations[name]
            weight = seen.layer.restored(matrix, seen.weight).astype(seen.weight.dtype)
            changed[seen.layer.weight] = np.ascontiguousarray(weight)
            if seen.layer.bias is not None:
                bias = changed.get(seen.layer.bias, self._weights[seen.layer.bias])
                changed[seen.layer.bias] = _shifted(bias, seen, matrix)
        return changed

    def _outputs(self, changed: Feed) -> Outputs:
        names = [value.name for value in self._session.get_outputs()]
        weights = {**self._weights, **changed}
        return [self._session.run(names, {**feed, **weights}) for feed in self.feeds]

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        """What probes may change: weights that sum over channels, and their biases."""
        names = {use.place.value for group in self.survey.groups for use in group.consumers}
        names |= {seen.layer.bias for seen in self.observations.values() if seen.layer.bias}
        held = self.survey.model.graph.initializers
        tensors = {name: held[name].const_value for name in sorted(names)}
        return {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}

    @cached_property
    def _session(self) -> ort.InferenceSession:
        """Gives outputs, and what those squash: there an error shows first."""
        names = [name for v in self.survey.model.graph.outputs if (name := unsquashed(v))]
        copy = with_outputs(self.survey.model, names)
        for name in self._weights:
            value = copy.graph.initializers.pop(name)
            value.const_value = None
            copy.graph.inputs.append(value)
        path = self.folder / "probe.onnx"
        graph.save(copy, path)
        return graph.session(path, threads=self.threads)


def _drawn(local: Array, places: Sequence[int], measured: Sequence[float]) -> Array:
    """A curve through what was measured, shaped in between like the local errors."""
    rising = np.maximum.accumulate(local) + np.arange(len(local)) * np.finfo(np.float32).tiny
    curve = np.interp(rising, rising[list(places)], measured)
    last = places[-1]
    unit = max(rising[last], rising[-1] * np.finfo(np.float32).eps, np.finfo(np.float32).tiny)
    beyond = measured[-1] * rising[last:] / unit
    curve[last:] = np.maximum(beyond, measured[-1])
    # A ranking that is flat where nothing was felt still prefers to take less.
    made: Array = curve + rising * _LEAST
    return made


def probe_samples(macs: int, groups: int) -> int:
    """How many samples each probe runs on; counted, not timed: a rerun does the same."""
    affordable = _MACS_OF_PROBES / max(1, macs * groups * _PROBES_PER_GROUP)
    return int(np.clip(affordable, _FEWEST_SAMPLES, _MOST_SAMPLES))


def unsquashed(output: ir.Value) -> str | None:
    """The value that an output is a softmax or sigmoid of, one spelt out included."""
    node = output.producer()
    if node is None:
        return None
    if node.op_type in ("Softmax", "LogSoftmax", "Sigmoid"):
        value = node.inputs[0]
    elif node.op_type == "Div" and is_written_softmax(node):
        value = _exponent(node.inputs[0])
    else:
        return None
    return None if value is None or value.producer() is None else value.name


def _exponent(value: ir.Value | None) -> ir.Value | None:
    """What is raised, before its maximum is taken off so that nothing overflows."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "Exp" or node.inputs[0] is None:
        return None
    shifted = node.inputs[0].producer()
    return (
        shifted.inputs[0]
        if shifted is not None and shifted.op_type == "Sub"
        else node.inputs[0]
    )


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


def _shifted(bias: np.ndarray, seen: Observation, matrix: np.ndarray) -> np.ndarray:
    """The bias carries the mean of what is gone, as the refit will let it."""
    lost = seen.layer.matrix(seen.weight) - matrix
    shift = np.einsum("gk,gkn->gn", seen.moments.means()[0], lost)
    return seen.layer.biased(bias, shift)
