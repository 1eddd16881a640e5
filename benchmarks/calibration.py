"""Calibrate and quantize ResNet-50: time against the bare inferences, and peak memory.

    python -m benchmarks.calibration

Each contestant is a process of its own, `python -m benchmarks.calibration WHO MODEL COUNT`,
which prints its seconds (without imports) and its highest resident memory. ONNX Runtime's
quantizer runs with and without its pre-processing; NNCF where it is installed.
"""

import importlib.util
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import onnxruntime as ort

from benchmarks.int8_speed import exported
from benchmarks.rows import Results, Row, watched
from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.passes import Context, StaticQuantization, Target

BARS = {"times_inferences": 4.0, "peak_mb": 600}  # and no more memory for `MANY` samples
SAMPLES, MANY = 32, 320


class Images(Sequence[dict[str, np.ndarray]]):
    """Seeded noise, drawn when it is asked for, so that no data lies in memory."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    @overload
    def __getitem__(self, index: int) -> dict[str, np.ndarray]: ...
    @overload
    def __getitem__(self, index: slice) -> "Images": ...
    def __getitem__(self, index: int | slice) -> "dict[str, np.ndarray] | Images":
        if isinstance(index, slice) or index >= self.count:
            raise IndexError(index)
        rng = np.random.default_rng(index)
        return {"x": rng.standard_normal((1, 3, 224, 224), np.float32)}


def inferences(model: Path, samples: Images, folder: Path) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    running = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for feed in samples:
        running.run(None, feed)


def ours(model: Path, samples: Images, folder: Path) -> None:
    quantized(model, samples, folder, StaticQuantization(calibration="percentile"))


def ours_with_gptq(model: Path, samples: Images, folder: Path) -> None:
    quantized(model, samples, folder, StaticQuantization(rounding="gptq"))


def quantized(model: Path, samples: Images, folder: Path, pass_: StaticQuantization) -> None:
    context = Context(
        workdir=folder,
        calibration=CalibrationSet(samples, "calibration"),
        target=Target(),
        seed=0,
        progress=lambda share, message: None,
        measure=lambda path: None,
    )
    graph.save(pass_.apply(graph.load(model), context), folder / "int8.onnx")


def onnxruntime_plain(model: Path, samples: Images, folder: Path) -> None:
    from onnxruntime.quantization import (  # noqa: PLC0415 - only this contestant may hold it
        CalibrationDataReader,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds: Iterator[dict[str, np.ndarray]] = iter(samples)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    quantize_static(model, folder / "int8.onnx", Reader(), per_channel=True)


def onnxruntime_preprocessed(model: Path, samples: Images, folder: Path) -> None:
    from onnxruntime.quantization.shape_inference import (  # noqa: PLC0415 - see above
        quant_pre_process,
    )

    quant_pre_process(model, folder / "prepared.onnx")
    onnxruntime_plain(folder / "prepared.onnx", samples, folder)


def nncf(model: Path, samples: Images, folder: Path) -> None:
    import nncf as library  # noqa: PLC0415 - may not be installed
    import onnx  # noqa: PLC0415 - see above

    data = library.Dataset(list(samples))
    onnx.save(library.quantize(onnx.load(model), data), folder / "int8.onnx")


CONTESTANTS: dict[str, Callable[[Path, Images, Path], None]] = {
    "inferences": inferences,
    "modelpress": ours,
    "modelpress, gptq": ours_with_gptq,
    "onnxruntime": onnxruntime_plain,
    "onnxruntime with pre-processing": onnxruntime_preprocessed,
    "nncf": nncf,
}


def measured(model: Path) -> Iterator[Row]:
    """A row for each contestant; the inferences are timed first and last."""
    with watched() as watch:
        before = _run("inferences", model, SAMPLES)["seconds"]
        found = {
            name: _run(name, model, SAMPLES)
            for name in CONTESTANTS
            if name != "inferences" and (name != "nncf" or importlib.util.find_spec("nncf"))
        }
        base = (before + _run("inferences", model, SAMPLES)["seconds"]) / 2
    for name, cost in found.items():
        yield _row(name, SAMPLES, cost) | watch | {
            "times_inferences": round(cost["seconds"] / base, 2), "bars": BARS,
        }  # fmt: skip
    yield _row("modelpress", MANY, _run("modelpress", model, MANY)) | {"bars": BARS}


def _row(name: str, samples: int, cost: dict[str, float]) -> Row:
    return {
        "bench": "calibration", "network": "ResNet-50", "who": name, "samples": samples,
        "peak_mb": round(cost["megabytes"]), "own_seconds": round(cost["seconds"], 1),
    }  # fmt: skip


def _run(name: str, model: Path, count: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.calibration", name, str(model), str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _contest(name: str, model: Path, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        CONTESTANTS[name](model, Images(count), Path(folder))
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"seconds": seconds, "megabytes": peak}


def main() -> None:
    results = Results()
    with tempfile.TemporaryDirectory() as folder:
        for row in measured(exported("ResNet-50", Path(folder))):
            results.add(row)


if __name__ == "__main__":
    if len(sys.argv) == len(("python", "who", "model", "count")):
        print(json.dumps(_contest(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
