"""Manual int8 against float on networks with seeded random weights, 1 thread."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.int8 import COMMAND, medians
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


def measured(name: str) -> str:
    """One row: the median of several runs, each of alternating inferences."""
    shape = SHAPES.get(name, IMAGE)
    samples = np.random.default_rng(0).standard_normal((16, *shape), np.float32)
    with tempfile.TemporaryDirectory() as place:
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
    listed = ", ".join(f"{value:.2f}" for value in sorted(speedups))
    return f"{name}: int8 {np.median(speedups):.2f}x ({listed}), bar {BARS[name]}x"


def rows() -> Iterator[str]:
    if not runs_here("x86-vnni"):
        yield "int8 speed: not applicable, this CPU has no VNNI"
        return
    yield from (measured(name) for name in BARS)
