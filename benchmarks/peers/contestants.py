"""The peers: an environment for each, and the file that each recipe of theirs makes."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rows import Row

HERE = Path(__file__).parent
RECIPES = {
    "onnxruntime": (
        "default", "dynamic", "expert-minmax", "expert-percentile", "expert-entropy",
        "expert-products",
    ),
    "nncf": ("default", "transformer"),
    "onnxsim": ("simplify", "static"),
}  # fmt: skip
MOST_SECONDS = 900


@dataclass(frozen=True)
class Contestant:
    peer: str
    recipe: str

    @property
    def name(self) -> str:
        return f"{self.peer} {self.recipe}"

    @property
    def file_name(self) -> str:
        return f"{self.peer}-{self.recipe}"


CONTESTANTS = [Contestant(peer, one) for peer, recipes in RECIPES.items() for one in recipes]


def environments_folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "modelpress-peers"


def python_of(peer: str, folder: Path) -> Path:
    """The Python of the peer's environment, made where it is missing or changed."""
    requirements = HERE / f"{peer}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    place = folder / f"{peer}-{digest}"
    python, stamp = place / "bin" / "python", place / "made"
    if not stamp.exists():
        print(f"setting up {place}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", place], check=True)
        install = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", requirements], check=True)
        stamp.touch()
    return python


def make(
    who: Contestant, model: Path, feeds: Path, *, work: Path, environments: Path
) -> tuple[Path, Row]:
    """The peer's file in the work folder and what there is to tell: seconds or an error."""
    work.mkdir(parents=True, exist_ok=True)
    out, told = work / f"{who.file_name}.onnx", work / f"{who.file_name}.json"
    if not told.exists():
        python = python_of(who.peer, environments)
        script = HERE / f"with_{who.peer}.py"
        start = time.monotonic()
        error = _run([python, script, who.recipe], model, feeds, out)
        row = {"error": error} if error else {"made_in": round(time.monotonic() - start, 1)}
        told.write_text(json.dumps(row))
    return out, json.loads(told.read_text())


def _run(command: list[str | Path], model: Path, feeds: Path, out: Path) -> str | None:
    """What went wrong, in a line."""
    # ONNX Runtime leaves files beside the model, and NNCF in the current folder.
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / model.name
        shutil.copy(model, own)
        try:
            done = subprocess.run(
                [*command, own, feeds.resolve(), out],
                capture_output=True, text=True, cwd=folder, timeout=MOST_SECONDS,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"not done after {MOST_SECONDS} s"
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return (lines[-1] if lines else f"exit {done.returncode}")[:300]
