"""One pass over the samples; memory does not grow with their number."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from worker.compression import graph
from worker.compression.calibration import CalibrationSet, real_places
from worker.compression.ranges.masks import unpadded
from worker.compression.ranges.observed import Observed

# Activations held at once; a model with more is run several times for each sample.
_HELD_BYTES = 192_000_000
# Ranges have settled when this many samples moved none of them by more than this share.
_SETTLED_SAMPLES = 32
_SETTLED_SHARE = 0.01


@dataclass(frozen=True)
class Observation:
    """What was seen of each tensor, over how many samples."""

    tensors: Mapping[str, Observed]
    samples: int


def observe(
    path: Path,
    names: Sequence[str],
    samples: CalibrationSet,
    *,
    histograms: bool,
    threads: int = 1,
    progress: Callable[[float, str], None] = lambda share, message: None,
) -> Observation:
    """Watch the named tensors of a model while it runs on the samples, until ranges settle.

    Tensors that are not floating point, or that no sample reached, are absent. Files are
    written beside the model, whose nodes need unique names. Equal arguments give equal ranges,
    with histograms or without; other tensors among the names may change the last bits, since
    ONNX Runtime fuses other nodes then.
    """
    given = {spec.name for spec in graph.inputs(path)}.intersection(names)
    observed = {name: Observed() for name in names}
    groups = _groups(path, [name for name in names if name not in given], samples[0])
    used = 0
    for number, group in enumerate(groups):
        watch = _Watch({name: observed[name] for name in (*group, *(() if number else given))})
        watched = _with_outputs(path, group)
        running = graph.session(watched, threads=threads)
        for position, feed in enumerate(samples):
            # Nothing of a sample may outlive it: two samples at once are twice the memory.
            watch.update(
                {**feed, **_outputs(running, group, feed)}, real_places(feed), histograms
            )
            done = (number + (position + 1) / len(samples)) / len(groups)
            progress(done, f"calibrating, sample {position + 1} of {len(samples)}")
            used = max(used, position + 1)
            if watch.settled(position + 1):
                break
        watched.unlink()
    progress(1, f"ranges taken from {used} of {len(samples)} samples")
    return Observation({name: seen for name, seen in observed.items() if seen.seen}, used)


@dataclass
class _Watch:
    """Tensors that one session gives, and where their ranges stood a while ago."""

    observed: Mapping[str, Observed]
    before: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def update(
        self, arrays: Mapping[str, np.ndarray], mask: np.ndarray | None, histograms: bool
    ) -> None:
        for name, array in arrays.items():
            seen = self.observed.get(name)
            if seen and isinstance(array, np.ndarray) and array.dtype.kind == "f":
                seen.update(unpadded(array, mask), histogram=histograms)

    def settled(self, count: int) -> bool:
        """Whether the last 32 of `count` samples left every range nearly as it was."""
        if count % _SETTLED_SAMPLES:
            return False
        now = {name: (seen.minimum, seen.maximum) for name, seen in self.observed.items()}
        before, self.before = self.before, now
        return bool(before) and all(_close(before[name], now[name]) for name in now)


def _close(before: tuple[float, float], now: tuple[float, float]) -> bool:
    moved = (before[0] - now[0]) + (now[1] - before[1])
    return before == now or moved < _SETTLED_SHARE * (now[1] - now[0])


def _outputs(
    running: ort.InferenceSession, names: list[str], feed: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    results = running.run(names, dict(feed)) if names else []
    return dict(zip(names, results, strict=True))


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
