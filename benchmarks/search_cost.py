"""What a search costs: seconds and evaluations on ResNet-18 at 224 pixels and the digits net.

python -m benchmarks.search_cost [--models digits ResNet-18]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.int8 import DIGITS
from benchmarks.int8_speed import IMAGE, exported
from benchmarks.product import CallFailed, automatic, chosen, compress
from benchmarks.rows import Results, Row, about_this_machine

BARS = {"digits": 60, "ResNet-18": 480}
MOST_EVALUATIONS = 50
SAMPLES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="*", default=list(BARS), choices=list(BARS))
    given = parser.parse_args()
    results = Results()
    results.add(about_this_machine())
    for name in given.models:
        with tempfile.TemporaryDirectory() as folder:
            results.add({"bench": "search_cost", "model": name} | measured(name, Path(folder)))


def measured(name: str, folder: Path) -> Row:
    model, samples = subject(name, folder)
    try:
        run = compress(model, folder / "out", automatic("latency"), samples)
    except CallFailed as failure:
        return {"error": str(failure)}
    evaluations = len(run.report["candidates"])
    return {
        "outcome": run.report["verdict"]["outcome"],
        "chosen": chosen(run.report).get("name"),
        "speedup": run.report["latency"][0]["speedup"],
        "evaluations": evaluations, "bar_seconds": BARS[name],
        "bar_evaluations": MOST_EVALUATIONS, **run.watch,
        "held": run.watch["seconds"] < BARS[name] and evaluations < MOST_EVALUATIONS,
    }  # fmt: skip


def subject(name: str, folder: Path) -> tuple[Path, Path]:
    if name == "digits":
        return DIGITS / "digits.onnx", DIGITS / "calibration.npz"
    drawn = np.random.default_rng(0).standard_normal((SAMPLES, *IMAGE), np.float32)
    np.savez(folder / "samples.npz", x=drawn)
    return exported(name, folder), folder / "samples.npz"


if __name__ == "__main__":
    main()
