"""Whether two models give the same outputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from worker.compression import graph

# Largest difference, relative to the largest value of an output.
TOLERANCE = 1e-4
# Rounding may flip a tie between integers, such as an arg-max.
_SAME_INTEGERS = 0.999

Outputs = list[list[np.ndarray]]


def run_all(path: Path, feeds: Sequence[Mapping[str, np.ndarray]]) -> Outputs:
    """Outputs of every feed."""
    running = graph.session(path)
    return [[np.asarray(result) for result in running.run(None, dict(feed))] for feed in feeds]


def difference(before: Outputs, after: Outputs) -> str | None:
    """What differs beyond the tolerance, in words; None where nothing does."""
    for first, second in zip(before, after, strict=True):
        for position, (left, right) in enumerate(zip(first, second, strict=True)):
            reason = _difference(left, right)
            if reason is not None:
                return f"output {position} {reason}"
    return None


def _difference(left: np.ndarray, right: np.ndarray) -> str | None:
    if left.shape != right.shape:
        return f"changed its shape from {left.shape} to {right.shape}"
    if left.dtype != right.dtype:
        return f"changed its type from {left.dtype} to {right.dtype}"
    if left.dtype.kind != "f":
        same = 1.0 if left.size == 0 else float(np.mean(left == right))
        return None if same >= _SAME_INTEGERS else f"differs in {1 - same:.1%} of its values"
    finite = np.isfinite(left)
    if not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return "became infinite or not a number elsewhere"
    if not finite.any():
        return None
    reference = left[finite].astype(np.float64)
    error = float(np.abs(reference - right[finite]).max())
    scale = float(np.abs(reference).max())
    # A half-precision output cannot be closer than its own rounding.
    allowed = max(TOLERANCE, 2 * float(np.finfo(left.dtype).eps)) * scale
    return None if error <= allowed else f"differs by {error / (scale or 1):.1e} of its scale"
