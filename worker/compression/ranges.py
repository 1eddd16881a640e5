"""Ranges of activations, in one pass; memory does not grow with the number of samples.

Minimum and maximum are exact. Histograms span [-2^e, 2^e); when a value falls outside, e grows
and pairs of bins are merged, which loses nothing.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort

from worker.compression import graph
from worker.compression.calibration import CalibrationSet

Method = Literal["minmax", "percentile"]

# Share of the values that `percentile` keeps inside of the range.
_KEPT = 0.9999
_HALF_BINS = 2048
# Values of one tensor in one sample that enter its histogram.
_SUBSAMPLE = 16_384
# Activations held at once; a model with more is run several times for each sample.
_HELD_BYTES = 192_000_000


@dataclass
class Observed:
    """What was seen of one tensor over all samples so far."""

    minimum: float = math.inf
    maximum: float = -math.inf
    finite: bool = True
    exponent: int | None = None
    counts: np.ndarray = field(default_factory=lambda: np.zeros(2 * _HALF_BINS, np.int64))

    @property
    def seen(self) -> bool:
        return self.minimum <= self.maximum

    def update(self, array: np.ndarray, *, histogram: bool) -> None:
        """Take in the values of one sample; infinite ones and NaN only leave a mark."""
        if array.size == 0:
            return
        low, high = float(array.min()), float(array.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            self.finite = False
            array = array[np.isfinite(array)]
            if array.size == 0:
                return
            low, high = float(array.min()), float(array.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        if histogram:
            self._count(array, max(abs(low), abs(high)))

    def range(self, method: Method) -> tuple[float, float]:
        """Lowest and highest value that int8 should represent."""
        if method == "minmax" or self.exponent is None:
            return self.minimum, self.maximum
        upto = np.cumsum(self.counts) / self.counts.sum()
        edges = np.linspace(-1, 1, 2 * _HALF_BINS + 1) * 2.0**self.exponent
        outside = (1 - _KEPT) / 2
        low = edges[np.searchsorted(upto, outside, side="right")]
        high = edges[np.searchsorted(upto, 1 - outside) + 1]
        return max(float(low), self.minimum), min(float(high), self.maximum)

    def _count(self, array: np.ndarray, largest: float) -> None:
        if largest == 0 and self.exponent is None:
            return  # no scale to begin with; zeros are inside of every range
        self._grow(largest)
        # An odd stride meets every column of a tensor whose width is a power of two.
        stride = max(1, array.size // _SUBSAMPLE) | 1
        values = array.ravel()[::stride].astype(np.float64)
        bins = np.floor(values * (_HALF_BINS / 2.0 ** (self.exponent or 0))) + _HALF_BINS
        places = np.clip(bins, 0, 2 * _HALF_BINS - 1).astype(np.int64)
        self.counts += np.bincount(places, minlength=2 * _HALF_BINS)

    def _grow(self, largest: float) -> None:
        needed = math.frexp(largest)[1] if largest else -1022
        if self.exponent is None:
            self.exponent = needed
        while self.exponent < needed:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, _HALF_BINS // 2)
            self.exponent += 1


def observe(
    path: Path,
    names: Sequence[str],
    samples: CalibrationSet,
    *,
    histograms: bool,
    threads: int = 1,
    progress: Callable[[float, str], None] = lambda share, message: None,
) -> dict[str, Observed]:
    """Watch the named tensors of a model while it runs on every sample.

    Tensors that are not floating point, or that no sample reached, are absent. Files are
    written beside the model, whose nodes need unique names.
    """
    taken = {spec.name for spec in graph.inputs(path)}
    observed = {name: Observed() for name in names}
    groups = _groups(path, [name for name in names if name not in taken], samples[0])
    for number, group in enumerate(groups):
        watched = _with_outputs(path, group)
        running = graph.session(watched, threads=threads)
        for position, feed in enumerate(samples):
            if number == 0:
                _update(observed, feed, histograms=histograms)
            # Nothing of a sample may outlive it: two samples at once are twice the memory.
            _update(observed, _outputs(running, group, feed), histograms=histograms)
            done = (number + (position + 1) / len(samples)) / len(groups)
            progress(done, f"calibrating, sample {position + 1} of {len(samples)}")
        watched.unlink()
    return {name: seen for name, seen in observed.items() if seen.seen}


def _outputs(
    running: ort.InferenceSession, names: list[str], feed: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    results = running.run(names, dict(feed)) if names else []
    return dict(zip(names, results, strict=True))


def _update(
    observed: Mapping[str, Observed], arrays: Mapping[str, np.ndarray], *, histograms: bool
) -> None:
    for name, array in arrays.items():
        if name in observed and isinstance(array, np.ndarray) and array.dtype.kind == "f":
            observed[name].update(array, histogram=histograms)


def _groups(
    path: Path, names: Sequence[str], feed: Mapping[str, np.ndarray]
) -> list[list[str]]:
    """Tensors that may be held together, from their sizes in one run."""
    sizes = _tensor_bytes(path, feed)
    groups: list[list[str]] = [[]]
    held = 0
    for name in names:
        size = sizes.get(name, 0)
        if groups[-1] and held + size > _HELD_BYTES:
            groups.append([])
            held = 0
        groups[-1].append(name)
        held += size
    return groups


def _tensor_bytes(path: Path, feed: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Size of every node output, in bytes, as ONNX Runtime's profile tells it."""
    running = graph.session(path, optimize=False, profile_prefix=path.with_name("sizes"))
    running.run(None, dict(feed))
    profile = Path(running.end_profiling())
    made = {node.name: node.outputs for node in graph.load(path).graph}
    sizes: dict[str, int] = {}
    for event in json.loads(profile.read_text()):
        outputs = made.get(event["name"].removesuffix("_kernel_time"), ())
        shapes = event.get("args", {}).get("output_type_shape", ())
        for value, entry in zip(outputs, shapes, strict=False):
            sizes[value.name or ""] = 4 * sum(math.prod(shape) for shape in entry.values())
    profile.unlink()
    return sizes


def _with_outputs(path: Path, names: Sequence[str]) -> Path:
    """The model beside itself, with more tensors as outputs; external data is shared."""
    proto = onnx.load(path, load_external_data=False)
    present = {output.name for output in proto.graph.output}
    # Without a type: ONNX Runtime infers it.
    proto.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in present
    )
    watched = path.with_name("observed.onnx")
    onnx.save(proto, watched)
    return watched
