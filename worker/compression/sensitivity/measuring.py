"""Runs the original with the twins of its layers."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worker.compression import graph
from worker.compression.calibration import CalibrationSet, Feed, real_places
from worker.compression.cleaning import opset_raised
from worker.compression.quantization.halves import widen
from worker.compression.sensitivity.twins import MASK, Twin, graft, shapes

_LOWEST_DB, _HIGHEST_DB = -100.0, 200.0
# The graph with the twins holds two weights for each of the original's.
_LEAST_IR_VERSION = 4


def twin_sqnr(
    original: Path, twins: Sequence[Twin], samples: CalibrationSet, *, threads: int = 1
) -> dict[str, float]:
    """SQNR in dB of each layer's own error over all samples, by node name.

    Absent are layers whose twin does not run, because its shapes are others, and layers that
    the samples give no signal.
    """
    with tempfile.TemporaryDirectory(prefix="twins-") as folder:
        path = Path(folder) / "original.onnx"
        try:
            _save_alike(original, twins, path)
        except MemoryError:
            raise
        except Exception:  # whatever the version converter raises: then nothing is known
            return {}
        return _measured(path, twins, samples, threads)


def _save_alike(original: Path, twins: Sequence[Twin], path: Path) -> None:
    """The original in the operator set and the number type that results are in."""
    model = graph.load(original)
    graph.name_nodes(model)
    model.ir_version = max(model.ir_version, _LEAST_IR_VERSION)
    if any(twin.domains.get("", 0) > graph.opset(model) for twin in twins):
        model = opset_raised(model)
    widen(model)
    graph.save(model, path)


def _measured(
    path: Path, twins: Sequence[Twin], samples: CalibrationSet, threads: int
) -> dict[str, float]:
    if not twins:
        return {}
    try:
        return _decibels(twins, _sums(path, twins, samples, threads))
    except MemoryError:
        raise
    except Exception:  # whatever ONNX Runtime raises where shapes do not fit
        if len(twins) == 1:
            return {}
    # One twin must not spoil the others.
    half = len(twins) // 2
    first = _measured(path, twins[:half], samples, threads)
    return first | _measured(path, twins[half:], samples, threads)


def _sums(
    original: Path, twins: Sequence[Twin], samples: CalibrationSet, threads: int
) -> np.ndarray:
    """Noise of every twin, then power of every target, summed over all samples."""
    path = original.with_name("twins.onnx")
    ranks = _padded(original, twins, samples)
    graph.save(graft(graph.load(original), twins, ranks), path)
    running = graph.session(path, threads=threads)
    total = np.zeros(2 * len(twins))
    for feed in samples:
        mask = {MASK: _mask(feed)} if ranks else {}
        total += np.array(running.run(None, {**feed, **mask}), np.float64)
    return total


def _padded(original: Path, twins: Sequence[Twin], samples: CalibrationSet) -> dict[str, int]:
    """Targets whose first two axes are those of the mask, with how many axes they have."""
    padded = next((feed for feed in samples if real_places(feed) is not None), None)
    real = None if padded is None else real_places(padded)
    if padded is None or real is None:
        return {}
    path = original.with_name("shapes.onnx")
    names = list(dict.fromkeys(twin.target for twin in twins))
    graph.save(shapes(graph.load(original), names), path)
    found = graph.session(path).run(None, padded)
    return {
        name: len(shape)
        for name, shape in zip(names, found, strict=True)
        if len(shape) > 2 and tuple(shape[:2]) == real.shape
    }


def _mask(feed: Feed) -> np.ndarray:
    real = real_places(feed)
    return np.ones((1, 1), np.float32) if real is None else real.astype(np.float32)


def _decibels(twins: Sequence[Twin], sums: np.ndarray) -> dict[str, float]:
    noise, power = sums.reshape(2, -1)
    found = {}
    for twin, lost, signal in zip(twins, noise, power, strict=True):
        if np.isfinite(lost) and np.isfinite(signal) and signal > 0:
            sqnr = 10 * np.log10(signal / lost) if lost > 0 else _HIGHEST_DB
            found[twin.layer] = float(np.clip(sqnr, _LOWEST_DB, _HIGHEST_DB))
    return found
