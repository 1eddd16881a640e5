"""Every quantization method on every corpus model: does the result load, run and stay close.

    python -m benchmarks.methods --corpus DIR [--models NAME ...] [--methods NAME ...]

Each pair runs in a child of its own: methods by themselves, on the model as it was uploaded.
One JSON line: `result`, or `refused` with the reason; a share of the bytes; the worst SQNR of
any output over 8 feeds; seconds. Anything else is `failed`, and the exit status then is 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from benchmarks.rows import Results, Row
from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.errors import CompressionError, CompressionWarning
from worker.compression.passes import (
    Context,
    DynamicQuantization,
    GraphCleaning,
    HalfPrecision,
    Pass,
    StaticQuantization,
    Target,
    WeightQuantization,
)

LAYERS = ["Conv", "MatMul", "Gemm"]
METHODS: dict[str, list[Pass]] = {
    "static": [StaticQuantization()],
    "static cleaned": [GraphCleaning(), StaticQuantization()],
    "static percentile": [StaticQuantization(calibration="percentile")],
    "static entropy": [StaticQuantization(calibration="entropy")],
    "static mse": [StaticQuantization(calibration="mse")],
    "static gptq": [StaticQuantization(rounding="gptq")],
    "static int7": [StaticQuantization(weights="int7")],
    "static layers only": [StaticQuantization(ops=LAYERS)],
    "static cleaned layers only": [GraphCleaning(), StaticQuantization(ops=LAYERS)],
    "static qoperator": [StaticQuantization(format="qoperator")],
    "dynamic": [DynamicQuantization()],
    "dynamic with Conv": [DynamicQuantization(ops=["MatMul", "Gemm", "LSTM", "Conv"])],
    "weights 8": [WeightQuantization()],
    "weights 4": [WeightQuantization(bits=4)],
    "half": [HalfPrecision()],
}
SAMPLES, JUDGED = 16, 8
SECONDS = 400


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, help="folder of the public models")
    parser.add_argument("--models", nargs="+", help="such as minilm/model")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--results", type=Path, help="add every line to this file, too")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(outcome(given.corpus, given.models[0], given.methods[0])))
        return 0
    results = Results(given.results)
    if given.corpus is None:
        results.add({"bench": "methods", "left_out": "needs --corpus"})
        return 0
    failed = False
    for name in given.models or models(given.corpus):
        for method in given.methods:
            row = in_child(given.corpus, name, method)
            failed |= row["outcome"] == "failed"
            results.add(row)
    return int(failed)


def models(corpus: Path) -> list[str]:
    folder = corpus / "public"
    found = sorted(folder.glob("*/*.onnx"), key=lambda path: path.stat().st_size)
    return [f"{path.parent.name}/{path.stem}" for path in found]


def in_child(corpus: Path, name: str, method: str) -> Row:
    """What `outcome` says in a process that may crash or hang."""
    asked = ["--corpus", str(corpus), "--models", name, "--methods", method]
    started = time.monotonic()
    row: Row = {"bench": "methods", "model": name, "method": method, "outcome": "failed"}
    try:
        child = subprocess.run(
            [sys.executable, "-m", "benchmarks.methods", *asked, "--child"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        row["reason"] = f"not done after {SECONDS} s"
    else:
        last = (child.stdout.splitlines() or [""])[-1]
        if child.returncode == 0 and last.startswith("{"):
            row.update(json.loads(last))
        else:
            row["reason"] = child.stderr.strip()[-300:]
    return row | {"seconds": round(time.monotonic() - started, 1)}


def outcome(corpus: Path, name: str, method: str) -> dict[str, Any]:
    """Apply one method; load and run what it made."""
    path = corpus / "public" / f"{name}.onnx"
    feeds = feeds_of(corpus, path)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        result = Path(folder) / "result.onnx"
        try:
            made = applied(METHODS[method], path, feeds[:SAMPLES], Path(folder))
        except CompressionError as error:
            return {"outcome": "refused", "reason": error.message}
        graph.save(made, result)
        told = [
            str(one.message) for one in heard if issubclass(one.category, CompressionWarning)
        ]
        return {
            "outcome": "result",
            "bytes": round(graph.file_bytes(result) / graph.file_bytes(path), 3),
            "sqnr_db": closeness(path, result, feeds[:JUDGED]),
            "reason": "; ".join(told)[:300],
        }


def applied(
    passes: Sequence[Pass], path: Path, feeds: Sequence[dict[str, np.ndarray]], folder: Path
) -> ir.Model:
    model = graph.load(path)
    for pass_ in passes:
        context = Context(
            workdir=Path(tempfile.mkdtemp(dir=folder)),
            calibration=CalibrationSet(feeds, "calibration"),
            target=Target(),
            seed=0,
            progress=lambda share, message: None,
            measure=lambda path: None,
        )
        model = pass_.apply(model, context)
    return model


def feeds_of(corpus: Path, path: Path) -> list[dict[str, np.ndarray]]:
    """Real feeds of a model; its variants leave out inputs that they do not have."""
    wanted = {one.name for one in graph.inputs(path)}
    feeds: dict[int, dict[str, np.ndarray]] = {}
    with np.load(corpus / "feeds" / f"{path.parent.name}.npz") as arrays:
        for key in arrays.files:
            number, _, name = key.partition("|")
            if name in wanted:
                feeds.setdefault(int(number), {})[name] = arrays[key]
    return [feeds[number] for number in sorted(feeds)]


def closeness(path: Path, result: Path, feeds: Sequence[dict[str, np.ndarray]]) -> float | None:
    """Worst SQNR, in dB, of an output over the feeds together, with stock onnxruntime."""
    sessions = [
        ort.InferenceSession(str(one), providers=["CPUExecutionProvider"])
        for one in (path, result)
    ]
    noise: dict[int, float] = {}
    signal: dict[int, float] = {}
    for feed in feeds:
        before, after = (session.run(None, feed) for session in sessions)
        for number, (ours, theirs) in enumerate(zip(before, after, strict=True)):
            wide = np.asarray(ours, np.float64)
            signal[number] = signal.get(number, 0) + float(np.square(wide).sum())
            error = float(np.square(wide - np.asarray(theirs, np.float64)).sum())
            noise[number] = noise.get(number, 0) + error
    ratios = [signal[number] / noise[number] for number in noise if noise[number]]
    return round(float(10 * np.log10(max(min(ratios), 1e-30))), 1) if ratios else None


if __name__ == "__main__":
    sys.exit(main())
