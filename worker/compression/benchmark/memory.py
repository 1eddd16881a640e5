"""Peak memory of a process that loads and runs a model once."""

import resource
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from worker.compression import graph

_RESET_PEAK = "5"


def load_and_run(path: Path, feed: Mapping[str, np.ndarray], *, threads: int = 1) -> None:
    """Load the model and run it once.

    Raises:
        InvalidModel: the model does not load.
    """
    graph.session(path, threads=threads).run(None, dict(feed))


def peak_memory_of_self() -> int:
    """High-water mark of this process's resident memory, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration, ValueError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def reset_peak_memory() -> bool:
    """Lower the high-water mark to what is resident now; False where that is not permitted."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def peak_memory_of_run(path: Path, feed: Mapping[str, np.ndarray], *, threads: int = 1) -> int:
    """Bytes that loading and running adds to this process's peak; the process must be fresh.

    What importing ONNX Runtime took is not counted (DESIGN.md 3.5).

    Raises:
        InvalidModel: the model does not load.
    """
    reset_peak_memory()
    before = peak_memory_of_self()
    load_and_run(path, feed, threads=threads)
    return max(0, peak_memory_of_self() - before)
