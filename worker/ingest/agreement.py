"""Whether two runs give the same answers: TorchScript twice, or it and ONNX Runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.compression import graph
from worker.ingest.samples import Feed

TOLERANCE = 1e-4  # of the output's largest magnitude
_HALF_TOLERANCE = 2e-2
_FLOOR = 1e-6


@dataclass(frozen=True)
class Deviation:
    """The worst output: relative to its largest magnitude, or why it cannot be compared."""

    output: int
    relative: float
    reason: str

    def __str__(self) -> str:
        return f"output_{self.output} {self.reason}"


def deviation(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> Deviation | None:
    """The worst output that lies outside of the tolerance; None where all agree."""
    if len(expected) != len(actual):
        return Deviation(
            0, np.inf, f"is one of {len(actual)} outputs instead of {len(expected)}"
        )
    found = [
        _compare(index, *pair) for index, pair in enumerate(zip(expected, actual, strict=True))
    ]
    outside = [item for item in found if item is not None]
    return max(outside, key=lambda item: item.relative, default=None)


def error(expected: Sequence[np.ndarray], actual: Sequence[np.ndarray]) -> float:
    """The largest relative difference of all float outputs of equal shape."""
    pairs = zip(expected, actual, strict=True)
    return max((_relative(a, b) for a, b in pairs if a.dtype.kind == "f"), default=0.0)


def _compare(index: int, expected: np.ndarray, actual: np.ndarray) -> Deviation | None:
    if expected.shape != actual.shape:
        return Deviation(
            index,
            np.inf,
            f"has the shape {list(actual.shape)} instead of {list(expected.shape)}",
        )
    if expected.dtype.kind != "f":
        share = float(np.mean(expected != actual)) if expected.size else 0.0
        return (
            Deviation(index, share, f"differs in {share:.2%} of its values") if share else None
        )
    if (np.isfinite(expected) != np.isfinite(actual)).any():
        return Deviation(index, np.inf, "has infinite or undefined values in other places")
    relative = _relative(expected, actual)
    limit = _HALF_TOLERANCE if expected.dtype == np.float16 else TOLERANCE
    if relative <= limit:
        return None
    return Deviation(
        index,
        relative,
        f"differs by {relative:.2g} of its largest magnitude (allowed: {limit:g})",
    )


def _relative(expected: np.ndarray, actual: np.ndarray) -> float:
    finite = np.isfinite(expected) & np.isfinite(actual)
    if not finite.any():
        return 0.0
    wanted, got = expected[finite].astype(np.float64), actual[finite].astype(np.float64)
    return float(np.abs(wanted - got).max() / max(float(np.abs(wanted).max()), _FLOOR))


class Converted:
    """A converted model in ONNX Runtime, opened once for all comparisons."""

    def __init__(self, path: Path) -> None:
        self._session = graph.session(path)
        self.inputs = [item.name for item in self._session.get_inputs()]

    def __call__(self, feed: Feed) -> list[np.ndarray]:
        given = {name: np.ascontiguousarray(feed[name]) for name in self.inputs}
        outputs: list[np.ndarray] = self._session.run(None, given)
        return outputs
