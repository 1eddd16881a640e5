"""The corpus and its task metrics: a script of the corpus' own, run by a Python that has what
it needs (`recipes.py DIR NAME --model FILE`, `recipes.py DIR NAME --calib FILE --n N`).
"""

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.int8 import DIGITS
from benchmarks.rows import Row

METRICS = {
    "magika": "top1", "silero_vad": "auc", "ppocr4_rec": "char_acc", "ppocr4_det": "f1",
    "basic_pitch": "note_ap", "fer_emotion": None, "efficientnet_lite0": None,
    "minilm": "recall1",
}  # fmt: skip
"""The metric of each model; None: the share of answers equal to the float model's."""
SAMPLES = 64
BOUND = 0.01


@dataclass(frozen=True)
class Corpus:
    """`folder` has public/NAME/model.onnx; `images` is the optional git folder of ImageNet."""

    folder: Path
    recipes: Path
    python: Path
    images: str = ""

    def model(self, name: str) -> Path:
        return self.folder / "public" / name / "model.onnx"

    def feeds(self, name: str, samples: int = SAMPLES) -> Path:
        """Calibration feeds, recorded by the recipe where they are not there yet."""
        among = "" if samples == SAMPLES else f"-{samples}"
        file = self.folder / "feeds" / f"{name}{among}.npz"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            part = file.with_suffix(".part.npz")
            self._ask(name, "--calib", str(part), "--n", str(samples))
            part.rename(file)
        return file

    def judged(self, name: str, result: Path) -> Row:
        """The task metric of original and result in one run, and the relative loss of it."""
        if _digest(result) == _digest(self.model(name)):
            return {"metric": METRICS[name] or "agreement", "drop": 0.0, "unchanged": True}
        told = self._ask(name, "--model", str(result))
        key = METRICS[name] or ("top1" if self.images and name.startswith("eff") else None)
        close = {name: told["vs_float"].get(name) for name in ("sqnr_db", "argmax_agreement")}
        if key is None:
            agreement = told["vs_float"].get("argmax_agreement", 0.0)
            return {"metric": "agreement", "before": 1.0, "after": agreement,
                    "drop": 1 - agreement, **close}  # fmt: skip
        before, after = told["float_"][key], told[key]
        drop = (before - after) / before
        return {"metric": key, "before": before, "after": after, "drop": drop, **close}

    def _ask(self, name: str, *more: str) -> dict[str, Any]:
        images = ["--images", self.images] if self.images else []
        command = [self.python, self.recipes, self.folder, name, *more, *images]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise TaskFailed(" / ".join(done.stderr.strip().splitlines()[-2:]))
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer


class TaskFailed(Exception):
    """The metric could not be taken: the model does not load or run there."""


def add_arguments(
    parser: argparse.ArgumentParser, models: Sequence[str] = tuple(METRICS)
) -> None:
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder of the public models"
    )
    parser.add_argument("--recipes", type=Path, required=True, help="recipes.py of the corpus")
    parser.add_argument(
        "--recipes-python", type=Path, default=Path(sys.executable), help="that runs it"
    )
    parser.add_argument("--images", default="", help="git folder of ImageNet samples")
    parser.add_argument("--models", nargs="*", default=list(models))
    parser.add_argument("--results", type=Path, help="rows are added here; done ones skipped")


def corpus(given: argparse.Namespace) -> Corpus:
    return Corpus(given.corpus, given.recipes, given.recipes_python, given.images)


def files(given: argparse.Namespace, name: str) -> tuple[Path, Path]:
    """Model and calibration file of a corpus model, or of the example `digits`."""
    if name == "digits":
        return DIGITS / "digits.onnx", DIGITS / "calibration.npz"
    return corpus(given).model(name), corpus(given).feeds(name)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
