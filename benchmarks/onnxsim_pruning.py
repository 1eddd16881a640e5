"""Structured pruning of onnxsim, run by a Python that has it: the peer of channel pruning.

Not a dependency of the project: `pip install onnxsim==0.8.1` in an environment of its own, and
pass that environment's Python as `--peer`.
"""

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Feed = dict[str, np.ndarray]

SCRIPT = """
import sys
import numpy as np
import onnx
from onnxsim import apply_structured_pruning, apply_structured_wanda_pruning

model, out, kind, sparsity, feeds = sys.argv[1:]
samples = {}
for key, array in np.load(feeds).items():
    number, _, name = key.partition("|")
    samples.setdefault(int(number), {})[name] = array
loaded = onnx.load(model)
if kind == "l2":
    pruned = apply_structured_pruning(loaded, sparsity=float(sparsity))
else:
    pruned = apply_structured_wanda_pruning(
        loaded, calibration_data=[samples[n] for n in sorted(samples)], sparsity=float(sparsity)
    )
onnx.save(pruned, out)
"""
KINDS = ("l2", "wanda")
# Halvings of the range of sparsities; how near the share of work must come.
_HALVINGS, _NEAR = 7, 0.01


@dataclass(frozen=True)
class Peer:
    """The Python to run, the model, the calibration feeds and a scratch folder."""

    python: Path
    model: Path
    feeds: Sequence[Feed]
    folder: Path

    def pruned(self, kind: str, sparsity: float) -> Path | None:
        """The model pruned by onnxsim, or None where it fails."""
        feeds = self.folder / "feeds.npz"
        if not feeds.exists():
            np.savez(
                feeds,
                **{f"{n}|{k}": v for n, feed in enumerate(self.feeds) for k, v in feed.items()},
            )
        out = self.folder / f"{kind}-{sparsity:.4f}.onnx"
        command = [self.python, "-c", SCRIPT, self.model, out, kind, str(sparsity), feeds]
        done = subprocess.run(command, capture_output=True, cwd=tempfile.gettempdir())
        return out if done.returncode == 0 and out.exists() else None

    def at(self, kind: str, share: float, saved: Callable[[Path], float]) -> Path | None:
        """The file that saves nearest to `share` of the work; None where none does."""
        low, high, best = 0.0, 0.98, None
        gap = 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            made = self.pruned(kind, middle)
            if made is None:
                high = middle
                continue
            found = saved(made)
            if found > 0 and abs(found - share) < gap:
                best, gap = made, abs(found - share)
            if gap < _NEAR:
                break
            low, high = (middle, high) if found < share else (low, middle)
        return best
