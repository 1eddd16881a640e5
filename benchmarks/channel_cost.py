"""Channel pruning of ResNet-18 at 224: seconds and memory of groups, proof, ranks, cut, refit.

    python -m benchmarks.channel_cost [--samples N ...]

Each count of samples is pruned by 30 % of the multiplications in a process of its own, on two
cores; memory is that process' highest, and must not grow with the samples.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.calibration import Images
from benchmarks.int8_speed import exported
from benchmarks.rows import Results, Row, watched
from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.passes import ChannelPruning, Context, Target

BARS = {"own_seconds": 90, "growth_mb": 50}
SAMPLES = (32, 128)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", nargs="*", type=int, default=list(SAMPLES))
    parser.add_argument("--results", type=Path, help="rows are added here")
    parser.add_argument("--once", nargs=2, metavar=("MODEL", "COUNT"), help="one process' part")
    given = parser.parse_args()
    if given.once:
        print(json.dumps(pruned(Path(given.once[0]), int(given.once[1]))))
        return
    results = Results(given.results)
    with tempfile.TemporaryDirectory() as folder:
        model = exported("ResNet-18", Path(folder))
        for count in given.samples:
            results.add(measured(model, count))


def measured(model: Path, count: int) -> Row:
    command = [sys.executable, "-m", "benchmarks.channel_cost", "--once", model, str(count)]
    with watched() as watch:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    told: Row = json.loads(done.stdout.splitlines()[-1])
    key = {"bench": "channel_cost", "network": "ResNet-18", "samples": count}
    return key | told | watch | {"bars": BARS}


def pruned(model: Path, count: int) -> Row:
    """Prune once; seconds by stage, and what of the work went."""
    stages: dict[str, float] = {}
    begun = time.monotonic()

    def progress(share: float, message: str) -> None:
        stages[" ".join(message.split()[:2])] = round(time.monotonic() - begun, 1)

    with tempfile.TemporaryDirectory() as folder:
        context = Context(
            workdir=Path(folder),
            calibration=CalibrationSet(Images(count), "calibration"),
            target=Target(threads=2),
            seed=0,
            progress=progress,
            measure=lambda path: None,
        )
        result = ChannelPruning(amount=0.3).apply(graph.load(model), context)
        seconds = time.monotonic() - begun
        graph.save(result, Path(folder) / "pruned.onnx")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = result.meta["extra"]["channels"]
    return {
        "own_seconds": round(seconds, 1), "peak_mb": round(peak), "stages_end_at": stages,
        "macs_saved": told["saved"]["macs"], "groups": len(told["groups"]),
        "refitted": len(told["refitted"]),
    }  # fmt: skip


if __name__ == "__main__":
    main()
