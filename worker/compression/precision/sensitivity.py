"""What each stored weight, alone, costs the outputs: one session, whose weights are inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from worker.compression import graph
from worker.compression.calibration import CalibrationSet, Feed
from worker.compression.fidelity import OutputKind, Signal, layout, output_kinds
from worker.compression.precision.encoding import Encoding
from worker.compression.precision.parameters import Parameter

# Sizes of all samples that are looked at, and how many these are: a few pictures, but many
# frames of sound, since one frame says little of the next.
_ELEMENTS, _FEWEST, _MOST = 1_000_000, 2, 32
# To tell weights from one another a part of them is enough.
_ROUGH_SHARE = 4


class Sensitivity:
    """Runs a model with some weights replaced.

    `model` is left as it was; its copy in `workdir` takes every weight as an input.
    """

    def __init__(
        self,
        model: ir.Model,
        parameters: Sequence[Parameter],
        samples: CalibrationSet,
        *,
        workdir: Path,
        threads: int,
    ) -> None:
        path = workdir / "sensitivity.onnx"
        self._names = {one: f"weight_{number}" for number, one in enumerate(parameters)}
        _write(model, self._names, path)
        self._session: ort.InferenceSession = graph.session(path, threads=threads)
        self._kinds = output_kinds(model, {})
        self._made = {value.name or "": value for value in model.graph.outputs}
        self._feeds = _chosen(samples)
        self._originals = [self._run(feed, {}) for feed in self._feeds]
        graph.remove(path)

    def noise(self, encodings: Mapping[Parameter, Encoding], *, roughly: bool) -> float:
        """Noise over signal at the outputs (power), with these weights encoded.

        Of the worst output, and of its worst channel unless only the largest entry or the
        angle of a vector counts.
        """
        given = {
            self._names[one]: encoding.decoded().astype(one.tensor.dtype.numpy())
            for one, encoding in encodings.items()
        }
        count = max(_FEWEST, len(self._feeds) // _ROUGH_SHARE) if roughly else None
        signals: dict[str, Signal] = {}
        for feed, originals in list(zip(self._feeds, self._originals, strict=True))[:count]:
            results = self._run(feed, given)
            for name, original in originals.items():
                if original.dtype.kind != "f":
                    continue
                if not np.isfinite(results[name]).all() and np.isfinite(original).all():
                    return float("inf")
                if name not in signals:
                    signals[name] = Signal(layout(self._made[name], original.ndim))
                _add(signals[name], original, results[name])
        return max((_noise(self._kinds[name], one) for name, one in signals.items()), default=0)

    def _run(self, feed: Feed, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = list(self._kinds)
        outputs = self._session.run(names, {**feed, **given})
        return {name: np.asarray(value) for name, value in zip(names, outputs, strict=True)}


def _write(model: ir.Model, names: Mapping[Parameter, str], path: Path) -> None:
    """The model with its weights as inputs that have a default; then as it was again."""
    added: list[tuple[Parameter, ir.Value]] = []
    for parameter, name in names.items():
        value = ir.Value(name=name, const_value=parameter.tensor)
        value.dtype, value.shape = (
            parameter.tensor.dtype,
            ir.Shape(parameter.tensor.shape.numpy()),
        )
        model.graph.inputs.append(value)
        model.graph.register_initializer(value)
        parameter.value.replace_all_uses_with(value)
        added.append((parameter, value))
    graph.save(model, path)
    for parameter, value in reversed(added):
        value.replace_all_uses_with(parameter.value)
        model.graph.inputs.remove(value)
        model.graph.initializers.pop(value.name or "")


def _chosen(samples: CalibrationSet) -> list[Feed]:
    """Samples spread over all of them."""
    elements = sum(value.size for value in samples[0].values())
    count = min(max(_ELEMENTS // max(elements, 1), _FEWEST), _MOST, len(samples))
    places = np.linspace(0, len(samples) - 1, count).astype(int)
    return [samples[int(place)] for place in dict.fromkeys(places)]


def _add(signal: Signal, original: np.ndarray, result: np.ndarray) -> None:
    wide = original.astype(np.float32), result.astype(np.float32)
    finite = np.isfinite(wide[0])
    signal.add(np.where(finite, wide[0], 0), np.where(finite, wide[1], 0))


def _noise(kind: OutputKind, signal: Signal) -> float:
    worst = signal.worst_channel() if kind in ("value", "state") else None
    found = signal.sqnr_db() if worst is None or worst.sqnr_db is None else worst.sqnr_db
    return float(10 ** (-found / 10))
