"""What the channels of tensors hold over the samples: largest magnitude, mean square, sign."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.equalization.groups import Group

# Activations held at once; a model with more is run several times for each sample.
_HELD_BYTES = 128_000_000
# More samples hardly move a scale.
_MOST_SAMPLES = 64
# What these read alone is never written as int8: the range behind them is.
_VANISHING = {"Relu", "Clip"}


@dataclass(frozen=True)
class Seen:
    """Of each channel of a group: largest magnitude over its tensors, and mean square.

    `signed`: some tensor has values below zero.
    """

    largest: np.ndarray
    energy: np.ndarray
    signed: bool


def observed(
    path: Path, found: Sequence[Group], samples: CalibrationSet, *, threads: int = 1
) -> dict[Group, Seen]:
    """What each group of a model file holds; absent are groups that no sample reached.

    Memory does not grow with the samples. Files are written beside the model.
    """
    some = samples[:_MOST_SAMPLES]
    tensors = {name: group for group in found for name in _names(group)}
    sums = {group: _Sums(np.zeros(group.channels), np.zeros(group.channels)) for group in found}
    for names in _parts(path, list(tensors), some):
        watch = graph.Watch(path, names, threads=threads)
        for feed in some:
            for name, array in watch.run(feed).items():
                sums[tensors[name]].add(array, tensors[name].axis)
        watch.close()
    return {group: one.seen() for group, one in sums.items() if one.count}


@dataclass
class _Sums:
    largest: np.ndarray
    squares: np.ndarray
    count: int = 0
    signed: bool = False

    def add(self, array: np.ndarray, axis: int) -> None:
        rows = np.moveaxis(array, axis, -1).reshape(-1, array.shape[axis])
        rows = rows[np.isfinite(rows).all(axis=1)]
        if not len(rows) or rows.shape[1] != len(self.largest):
            return
        self.largest = np.maximum(self.largest, np.abs(rows).max(axis=0))
        self.squares += np.square(rows, dtype=np.float64).sum(axis=0)
        self.signed |= bool(rows.min() < 0)
        self.count += len(rows)

    def seen(self) -> Seen:
        return Seen(self.largest, self.squares / self.count, self.signed)


def _names(group: Group) -> list[str]:
    """The tensors of a group that would be written as int8."""
    return [value.name or "" for value in group.values if not _vanishes(value)]


def _vanishes(value: ir.Value) -> bool:
    readers = list(value.consumers())
    return bool(readers) and all(node.op_type in _VANISHING for node in readers)


def _parts(path: Path, names: Sequence[str], samples: CalibrationSet) -> list[list[str]]:
    """Tensors that may be held together."""
    elements: Mapping[str, int] = graph.sizes(path, names, samples[0]) if names else {}
    parts: list[list[str]] = []
    held = _HELD_BYTES
    for name in names:
        if held + 4 * elements[name] > _HELD_BYTES:
            parts.append([])
            held = 0
        parts[-1].append(name)
        held += 4 * elements[name]
    return parts
