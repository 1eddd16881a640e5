"""The product as its users meet it: the command `modelpress compress`, and its report."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rows import Row, watched

COMMAND = Path(sys.executable).with_name("modelpress")
DONE, ORIGINAL_BACK = 0, 3
Feed = dict[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """What one call gave: the result, its report, and how long it took beside whom."""

    model: Path
    report: Mapping[str, Any]
    watch: Row


class CallFailed(Exception):
    """The command ended neither with a result nor with the original."""


def compress(
    model: Path,
    out: Path,
    recipe: Mapping[str, Any] | str,
    calibration: Path | None,
    *more: str,
    cache: Path | None = None,
) -> Run:
    """Run the command, sandbox and all; without `cache` nothing is kept for another call.

    Raises:
        CallFailed: with the last lines that the command said.
    """
    command: list[str | Path] = [COMMAND, "compress", model, "-o", out]
    command += ["--recipe", text(recipe), *more]
    if calibration:
        command += ["--calibration", calibration]
    if cache is None:
        command.append("--no-cache")
    return _run(command, out, {"XDG_CACHE_HOME": str(cache)} if cache else {})


def untimed(model: Path, out: Path, recipe: Mapping[str, Any] | str, samples: Path) -> Run:
    """An explicit recipe by the library, which waits for no quiet: the same result.

    Raises:
        CallFailed: with the last lines that the process said.
    """
    command = [sys.executable, "-m", "benchmarks.untimed", model, out, text(recipe), samples]
    return _run(command, out, {})


def _run(command: list[str | Path], out: Path, environment: Mapping[str, str]) -> Run:
    with watched() as watch:
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, **environment}
        )
    if done.returncode not in (DONE, ORIGINAL_BACK):
        said = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise CallFailed(f"exit {done.returncode}: {said}")
    report = json.loads((out / "report.json").read_text())
    return Run(out / "model.onnx", report, watch)


def text(recipe: Mapping[str, Any] | str) -> str:
    return recipe if isinstance(recipe, str) else json.dumps(recipe)


def automatic(objective: str, *, seed: int = 0) -> dict[str, Any]:
    return {"passes": "auto", "goal": {"objective": objective}, "seed": seed}


def chosen(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The candidate that was chosen; empty where the original came back."""
    return next((one for one in report["candidates"] if one["chosen"]), {})


def feeds(path: Path) -> list[Feed]:
    """Of a file with keys `{i}|{input}`."""
    arrays = np.load(path)
    found: dict[int, Feed] = {}
    for key in arrays.files:
        number, _, name = key.partition("|")
        found.setdefault(int(number), {})[name] = arrays[key]
    return [found[number] for number in sorted(found)]
