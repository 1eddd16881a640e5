"""Check this bundle on this machine.

python verify.py [--threads N]

Compares every file with SHA256SUMS, runs model.onnx on the golden inputs and compares its
outputs with the golden ones. Needs Python 3.9, numpy and onnxruntime.

Exit codes:
  0  identical (bit for bit) or equivalent (no further off than compression itself explains)
  1  different: this machine makes something else of the model
  2  damaged: a file is missing or is not the one that was packed
  3  not run: numpy, onnxruntime or the model could not be loaded or run here
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when onnxruntime is imported

try:
    import numpy as np
    import onnxruntime as ort
except ImportError as error:
    print("NOT RUN:", error)
    print("Install what is missing: python -m pip install numpy onnxruntime")
    sys.exit(3)

IDENTICAL, DIFFERENT, DAMAGED, NOT_RUN = 0, 1, 2, 3
ENOUGH_DB = 40.0
# Two machines that each are as far from the original as the compression explains are at most
# this much further from each other.
MARGIN_DB = 3.0
# A class whose margin over the next one is below this share of the row's range is a near tie.
NEAR_TIE = 0.05
# Channels this far below the whole output carry no signal to compare.
CARRIES = 1e-10
PRECISE = "session.x64quantprecision"

Feed = dict[str, "np.ndarray"]
Sums = dict[tuple[int, int], "np.ndarray"]


class Sample(NamedTuple):
    """Golden inputs, what the result gave for them, and what the original gave."""

    feed: Feed
    result: Feed
    original: Feed


def golden(folder: Path) -> Iterator[Sample]:
    """The golden samples, one at a time."""
    with np.load(str(folder / "golden.npz"), allow_pickle=False) as arrays:
        parts: dict[int, dict[str, Feed]] = {}
        keys = sorted(arrays.files, key=lambda key: int(key.split("|", 2)[1]))
        for key in keys:
            role, number, name = key.split("|", 2)
            parts.setdefault(int(number), {"input": {}, "result": {}, "original": {}})
            parts[int(number)][role][name] = arrays[key]
    for number in sorted(parts):
        part = parts[number]
        yield Sample(part["input"], part["result"], part["original"])


def opened(path: Path, threads: int, precise: bool) -> Any:  # noqa: ANN401 - it has no types
    """A session on the CPU; `precise` takes the exact 8-bit kernels on x86 without VNNI."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if precise:
        options.add_session_config_entry(PRECISE, "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def carried(feed: Feed, states: dict[str, str], last: Feed | None) -> Feed:
    """The feed, with every state taken from the outputs of the sample before."""
    if last is None:
        return feed
    return {**feed, **{name: last[output] for name, output in states.items()}}


class Comparison:
    """One output over all samples: made here, against the golden one and the original's."""

    def __init__(self, name: str, kind: str) -> None:
        self.name, self.kind = name, kind
        self.identical, self.broken = True, ""
        self.answers = self.changed = 0
        self.sums: Sums = {}

    def add(self, original: np.ndarray, expected: np.ndarray, here: np.ndarray) -> None:
        if here.shape != expected.shape or here.dtype != expected.dtype:
            self.identical, self.broken = False, "another shape or type"
            return
        floats = expected.dtype.kind == "f"
        self.identical &= np.array_equal(here, expected, equal_nan=floats)
        if not floats:
            self._count(here == expected)
            return
        if not np.array_equal(np.isfinite(here), np.isfinite(expected)):
            self.broken = "NaN or infinite where it was not"
            return
        if self.kind == "class" and expected.ndim and expected.size:
            self._count(_same_answer(expected, here))
        values = [np.nan_to_num(_double(one), posinf=0, neginf=0) for one in (expected, here)]
        compared = original.shape == expected.shape and original.dtype.kind == "f"
        reference = np.nan_to_num(_double(original), posinf=0, neginf=0)
        self._sum(values[0], values[1], reference if compared else values[0])

    def _count(self, same: np.ndarray) -> None:
        self.answers += int(np.size(same))
        self.changed += int(np.size(same) - np.count_nonzero(same))

    def _sum(self, expected: np.ndarray, here: np.ndarray, original: np.ndarray) -> None:
        axes = {1, expected.ndim - 1} if expected.ndim > 1 else set()
        powers = (expected**2, (here - expected) ** 2, (original - expected) ** 2)
        for axis in (-1, *sorted(axes)):  # -1: all of them
            kept = tuple(other for other in range(expected.ndim) if other != axis)
            found = np.stack([np.atleast_1d(power.sum(axis=kept)) for power in powers])
            key = (axis, found.shape[1])
            self.sums[key] = self.sums.get(key, 0.0) + found

    def worst(self) -> tuple[float, float]:
        """SQNR of here against golden where it falls furthest short, and what was needed."""
        found = []
        total = self.sums.get((-1, 1), np.zeros((3, 1)))[0, 0]
        for sums in self.sums.values():
            for signal, noise, explained in sums.T:
                if signal <= CARRIES * total:
                    continue
                found.append((_decibels(signal, noise), _needed(signal, explained)))
        return min(found, key=lambda pair: pair[0] - pair[1], default=(np.inf, ENOUGH_DB))

    def verdict(self) -> tuple[str, str]:
        """identical, equivalent or different; and the figures."""
        if self.broken:
            return "different", self.broken
        if self.identical:
            return "identical", "bit for bit"
        words, good = [], True
        if self.answers:
            good = self.changed <= 0.01 * self.answers
            words.append(f"{self.changed} of {self.answers} answers changed")
        if self.sums:
            reached, needed = self.worst()
            good = good and reached >= needed
            words.append(f"SQNR {min(reached, 999):.1f} dB, needed {needed:.1f} dB")
        return ("equivalent" if good else "different"), "; ".join(words)


def _same_answer(expected: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Whether the largest entry is the same one, or the two were nearly tied."""
    was, now = expected.argmax(-1), here.argmax(-1)
    best = expected.max(-1)
    other = np.take_along_axis(expected, now[..., None], -1)[..., 0]
    return np.asarray((was == now) | (best - other <= NEAR_TIE * (best - expected.min(-1))))


def _double(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, np.float64)


def _decibels(signal: float, noise: float) -> float:
    return float(10 * np.log10(signal / noise)) if noise > 0 else float("inf")


def _needed(signal: float, explained: float) -> float:
    """Two machines may differ by 1 %, or else by as much as the compression changed."""
    return min(ENOUGH_DB, _decibels(signal, explained) - MARGIN_DB)


def compare(
    folder: Path, facts: dict[str, Any], threads: int, precise: bool
) -> list[tuple[str, str, str]]:
    """(output, verdict, figures) of each output of model.onnx."""
    session = opened(folder / "model.onnx", threads, precise)
    names = [output.name for output in session.get_outputs()]
    comparisons = {name: Comparison(name, facts["kinds"].get(name, "value")) for name in names}
    last: Feed | None = None
    for sample in golden(folder):
        outputs = session.run(names, carried(sample.feed, facts["states"], last))
        last = dict(zip(names, outputs))  # noqa: B905 - Python 3.9
        for name, here in last.items():
            value = here.astype(str) if np.asarray(here).dtype.kind == "O" else here
            expected = sample.result[name]
            comparisons[name].add(sample.original.get(name, expected), expected, value)
    return [(name, *one.verdict()) for name, one in comparisons.items()]


def damage(folder: Path) -> list[str]:
    """What is wrong with the files, one line each."""
    found = []
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        wanted, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif digest(path) != wanted:
            found.append(f"{name} is not the file that was packed")
    return found


def digest(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            found.update(piece)
    return found.hexdigest()


def environment() -> str:
    versions = f"numpy {np.__version__}, onnxruntime {ort.__version__}"
    machine = f"{platform.system()} {platform.machine()}"
    return f"{machine}, Python {platform.python_version()}, {versions}"


def facts_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "golden.json").read_text(encoding="utf-8"))
    return facts


def check(folder: Path, threads: int) -> int:
    """Print what there is to say; the exit code."""
    print("here:    ", environment())
    try:
        wrong = damage(folder)
    except OSError as error:
        wrong = [str(error)]
    if wrong:
        print("DAMAGED:", "; ".join(wrong))
        return DAMAGED
    facts = facts_of(folder)
    print("made on: ", facts["made_on"])
    found = compare(folder, facts, threads, precise=True)
    hint = ""
    if any(verdict == "different" for _, verdict, _ in found):
        # Where the golden outputs were made the kernels may have saturated.
        again = compare(folder, facts, threads, precise=False)
        if not any(verdict == "different" for _, verdict, _ in again):
            found, hint = again, f"(only without the session option {PRECISE})"
    for name, verdict, words in found:
        print(f"{verdict:<10} {name}: {words}")
    verdicts = {verdict for _, verdict, _ in found}
    for word in ("different", "equivalent", "identical"):
        if word in verdicts:
            print(word.upper() + ":", _SENTENCES[word], hint)
            return DIFFERENT if word == "different" else IDENTICAL
    print("NOT RUN: the model has no output")
    return NOT_RUN


_SENTENCES = {
    "different": "this machine makes something else of the model than it was tested with.",
    "equivalent": "not bit for bit, but within what other kernels and the compression explain.",
    "identical": "every output is the golden one, bit for bit.",
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference")
    arguments = parser.parse_args()
    try:
        return check(Path(__file__).resolve().parent, arguments.threads)
    except Exception as error:
        print(f"NOT RUN: {type(error).__name__}: {error}")
        return NOT_RUN


if __name__ == "__main__":
    sys.exit(main())
