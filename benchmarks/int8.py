"""The preset `int8` from outside: kernels by ONNX Runtime's profile, bytes, and its p50.

    python -m benchmarks.int8 [--corpus DIR]

Counts and times with stock onnxruntime alone, so that the report is held against something else
than the code that wrote it.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.rows import Results, Row, watched

COMMAND = Path(sys.executable).with_name("modelpress")
DIGITS = Path(__file__).parents[1] / "examples" / "digits"
INT8 = {
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
    "MatMulIntegerToFloat",
    "MatMulInteger",
    "ConvInteger",
    "DynamicQuantizeMatMul",
}
FLOAT = {"Conv", "FusedConv", "MatMul", "FusedMatMul", "Gemm", "FusedGemm"}
ROUNDS, WARM_UP = 60, 10
MODELS = ("efficientnet_lite0", "ppocr4_rec", "minilm")


@dataclass(frozen=True)
class Subject:
    """A model, its calibration file and the feeds in it."""

    name: str
    model: Path
    calibration: Path
    feeds: Sequence[dict[str, np.ndarray]]


def digits() -> Subject:
    file = DIGITS / "calibration.npz"
    samples = np.load(file)["x"]
    feeds = [{"x": samples[i : i + 1]} for i in range(8)]
    return Subject("digits", DIGITS / "digits.onnx", file, feeds)


def from_corpus(corpus: Path, name: str) -> Subject:
    file = corpus / "feeds" / f"{name}.npz"
    arrays = np.load(file)
    feeds: dict[str, dict[str, np.ndarray]] = {}
    for key in arrays.files:
        number, _, name_of_input = key.partition("|")
        feeds.setdefault(number, {})[name_of_input] = arrays[key]
    model = corpus / "public" / name / "model.onnx"
    return Subject(name, model, file, list(feeds.values()))


def compressed(subject: Subject, out: Path) -> dict[str, Any]:
    """The report of `modelpress compress --recipe int8`; its files are left in `out`."""
    command = [COMMAND, "compress", subject.model, "-o", out]
    options = ["--recipe", "int8", "--calibration", subject.calibration]
    subprocess.run([*command, *options], check=True, capture_output=True)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def measured(subject: Subject) -> Row:
    """One row: share of int8 MACs, bytes, and the report's p50 against ours."""
    with tempfile.TemporaryDirectory() as folder, watched() as watch:
        report = compressed(subject, Path(folder))
        result = Path(folder) / "model.onnx"
        told = report["latency"][0]
        feed = next(feed for feed in subject.feeds if _shapes(feed) == told["shapes"])
        share = int8_share(result, feed, Path(folder))
        before, after = medians(subject.model, result, feed)
        sizes = subject.model.stat().st_size, result.stat().st_size
    return {
        "bench": "int8", "model": subject.name, "int8_macs_share": round(share, 4),
        "bytes_ratio": round(sizes[1] / sizes[0], 4),
        "sizes_exact": (report["before"]["bytes"], report["after"]["bytes"]) == sizes,
        "latency_verdict": told["verdict"], "speedup": round(told["speedup"], 3),
        "report_over_outside_before": round(told["before"]["p50"] / before, 3),
        "report_over_outside_after": round(told["after"]["p50"] / after, 3),
        **watch,
    }  # fmt: skip


def int8_share(model: Path, feed: dict[str, np.ndarray], folder: Path) -> float:
    """Share of the multiply-accumulates of Conv, MatMul and Gemm that int8 kernels ran."""
    running = _session(model, profile=folder / "profile")
    running.run(None, feed)
    total = int8 = 0
    for event in json.loads(Path(running.end_profiling()).read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            count = _macs(event["args"])
            total += count
            int8 += count * (event["args"]["op_name"] in INT8)
    return int8 / total


def medians(before: Path, after: Path, feed: dict[str, np.ndarray]) -> tuple[float, float]:
    """Median milliseconds of both, in alternating order."""
    sessions = _session(before), _session(after)
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS):
        for place in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            sessions[place].run(None, feed)
            times[place].append(1000 * (time.perf_counter() - start))
    return float(np.median(times[0][WARM_UP:])), float(np.median(times[1][WARM_UP:]))


def _session(model: Path, profile: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _macs(event: dict[str, Any]) -> int:
    given = [shape for entry in event["input_type_shape"] for shape in entry.values()]
    made = [shape for entry in event["output_type_shape"] for shape in entry.values()]
    op = event["op_name"]
    if op not in INT8 | FLOAT:
        return 0
    if "Conv" in op:
        return math.prod(made[0]) * math.prod(given[3 if op == "QLinearConv" else 1][1:])
    return math.prod(made[0]) * given[0][-1]


def _shapes(feed: dict[str, np.ndarray]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in feed.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path)
    given = parser.parse_args()
    results = Results()
    results.add(measured(digits()))
    for name in MODELS if given.corpus else ():
        results.add(measured(from_corpus(given.corpus, name)))


if __name__ == "__main__":
    main()
