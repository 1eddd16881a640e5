"""Observe once, quantize many times: a prepared model with what was seen of its tensors."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx_ir as ir

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.quantization.choice import choose
from worker.compression.quantization.operators import FLOAT_OUTPUT, INT8_OPS, data_inputs
from worker.compression.quantization.preparation import prepare
from worker.compression.ranges import Method, Observed, observe

Progress = Callable[[float, str], None]


@dataclass
class Calibration:
    """What any candidate needs, whatever its method, operators and layers left float.

    The tensors of one pass over the samples are always the same ones, since other outputs make
    ONNX Runtime fuse and round differently: first those that the usual choices need, later, if
    a choice needs any, all others. So a candidate has the same ranges whatever came before it.
    """

    path: Path
    samples: CalibrationSet
    threads: int
    histograms: bool
    observed: dict[str, Observed] = field(default_factory=dict)
    samples_used: int = 0
    # What methods learnt beyond ranges: their own key, then the name of a layer.
    kept: dict[tuple[object, ...], dict[str, object]] = field(default_factory=dict)
    _watched: set[str] = field(default_factory=set)
    _ranges: dict[Method, Mapping[str, tuple[float, float]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        model: ir.Model,
        samples: CalibrationSet,
        path: Path,
        *,
        histograms: bool = True,
        threads: int = 1,
    ) -> "Calibration":
        """Prepare a model and write it to `path`; nothing is observed yet.

        Raises:
            PassFailed: its operator set is too old and cannot be raised.
        """
        graph.spill(prepare(model), path)
        return cls(path, samples, threads, histograms)

    def model(self) -> ir.Model:
        """The prepared model, to be changed; its large weights stay in the file."""
        return graph.load(self.path)

    def see(self, names: Sequence[str], progress: Progress) -> None:
        """Observe the named tensors, unless they have been."""
        for group in self._groups():
            missing = set(names) - self._watched
            if missing.intersection(group):
                self._observe(group, progress)

    def ranges(self, method: Method) -> Mapping[str, tuple[float, float]]:
        """Lowest and highest value to represent, of every tensor observed so far."""
        known = self._ranges.get(method, {})
        if len(known) < len(self.observed):
            self._ranges[method] = {
                name: known.get(name) or seen.range(method)
                for name, seen in self.observed.items()
            }
        return self._ranges[method]

    def _groups(self) -> tuple[list[str], list[str]]:
        """Tensors that the usual choices need, and all others that int8 operators touch."""
        model = self.model()
        usual = choose(model, INT8_OPS, set()).tensors(float_outputs=FLOAT_OUTPUT)
        touched: dict[str, None] = {}
        for node in model.graph:
            if node.op_type not in INT8_OPS or node.domain not in ("", "ai.onnx"):
                continue
            read = (node.inputs[index] for index in data_inputs(node))
            for value in (*read, *node.outputs):
                if value is not None and graph.constant(value) is None:
                    touched[value.name or ""] = None
        return usual, [name for name in touched if name not in set(usual)]

    def _observe(self, names: Sequence[str], progress: Progress) -> None:
        seen = observe(
            self.path,
            names,
            self.samples,
            histograms=self.histograms,
            threads=self.threads,
            progress=progress,
        )
        self._watched.update(names)
        self.observed.update(seen.tensors)
        self.samples_used = max(self.samples_used, seen.samples)
