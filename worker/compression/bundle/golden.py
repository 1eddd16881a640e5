"""Golden samples: inputs, and what the result and the original make of them."""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from worker.compression import graph
from worker.compression.calibration import Feed

MOST = 8
"""Samples in a bundle: enough to see a difference, few enough to send."""
_MOST_BYTES = 64 << 20


def write_golden(
    samples: Sequence[Feed],
    *,
    result: Path,
    original: Path,
    states: Mapping[str, str],
    path: Path,
) -> int:
    """Write an .npz of at most 8 samples and about 64 MB; how many it holds.

    Keys are `input|{i}|{name}`, `result|{i}|{name}` and `original|{i}|{name}`. `states` names
    the output that feeds an input next: from the second sample on each model is fed its own.
    """
    runs = {"result": _Run(result, states), "original": _Run(original, states)}
    written = count = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(min(len(samples), MOST)):
            feed = samples[number]
            parts = {"input": _kept(feed, states, first=number == 0)}
            parts |= {role: run.outputs(feed) for role, run in runs.items()}
            for role, arrays in parts.items():
                for name, value in arrays.items():
                    written += value.nbytes
                    with archive.open(
                        zipfile.ZipInfo(f"{role}|{number}|{name}.npy"), "w"
                    ) as to:
                        np.lib.format.write_array(to, value, allow_pickle=False)
            count += 1
            if written * (count + 1) > _MOST_BYTES * count:
                break
    return count


class _Run:
    """A model fed sample after sample, its states carried from one to the next."""

    def __init__(self, path: Path, states: Mapping[str, str]) -> None:
        self._session = graph.session(path)
        self._names = [output.name for output in self._session.get_outputs()]
        self._states = states
        self._last: dict[str, np.ndarray] = {}

    def outputs(self, feed: Feed) -> dict[str, np.ndarray]:
        carried = {
            name: self._last[output]
            for name, output in self._states.items()
            if output in self._last
        }
        values = self._session.run(self._names, feed | carried)
        self._last = dict(zip(self._names, values, strict=True))
        return {name: _storable(value) for name, value in self._last.items()}


def _kept(feed: Feed, states: Mapping[str, str], *, first: bool) -> Feed:
    return {
        name: _storable(value) for name, value in feed.items() if first or name not in states
    }


def _storable(value: np.ndarray) -> np.ndarray:
    """Text as fixed-width text: nothing in a bundle is pickled."""
    array = np.asarray(value)
    return array.astype(str) if array.dtype.kind == "O" else array
