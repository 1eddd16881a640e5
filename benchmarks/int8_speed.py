"""Manual int8 against float on networks with seeded random weights, 1 thread.

python -m benchmarks.int8_speed [--networks NAME ...]
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.int8 import COMMAND, medians
from benchmarks.rows import Results, Row, watched
from worker.compression.benchmark import runs_here

BARS = {"ResNet-50": 3.0, "MobileNetV2": 1.9, "ViT-S-like": 2.3}
SHAPES = {"ViT-S-like": (1, 197, 384)}
IMAGE = (1, 3, 224, 224)
RUNS = 5


def exported(name: str, folder: Path) -> Path:
    """The network as ONNX, written by a process of its own: torch takes memory and threads."""
    path = folder / f"{name}.onnx"
    subprocess.run([sys.executable, "-m", "benchmarks.networks", name, str(path)], check=True)
    return path


def measured(name: str) -> Row:
    """One row: the median of several runs, each of alternating inferences."""
    shape = SHAPES.get(name, IMAGE)
    samples = np.random.default_rng(0).standard_normal((16, *shape), np.float32)
    with tempfile.TemporaryDirectory() as place, watched() as watch:
        folder = Path(place)
        model = exported(name, folder)
        np.savez(folder / "samples.npz", x=samples)
        command = [COMMAND, "compress", model, "-o", folder / "out", "--recipe", "int8"]
        data = ["--calibration", folder / "samples.npz"]
        subprocess.run([*command, *data], check=True, capture_output=True)
        speedups = []
        for _ in range(RUNS):
            before, after = medians(model, folder / "out" / "model.onnx", {"x": samples[0]})
            speedups.append(before / after)
    return {
        "bench": "int8_speed", "network": name, "speedup": round(float(np.median(speedups)), 3),
        "runs": [round(value, 3) for value in sorted(speedups)], "bar": BARS[name], **watch,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="*", default=list(BARS), choices=list(BARS))
    given = parser.parse_args()
    results = Results()
    if not runs_here("x86-vnni"):
        results.add({"bench": "int8_speed", "left_out": "this CPU has no VNNI"})
        return
    for name in given.networks:
        results.add(measured(name))


if __name__ == "__main__":
    main()
