"""What a bench says: one JSON line a measurement, kept in a file so that a run can go on.

Every row tells when it was taken, of which commit, and what share of the cores others used
meanwhile: above `BUSY_SHARE` it is `"quiet": false`, and its times are not to be believed.
"""

import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from worker.compression.benchmark import environment
from worker.compression.benchmark.quiet import BUSY_SHARE, Load

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]
_PACKAGES = ("onnxruntime", "onnx", "onnx-ir", "onnxslim", "numpy", "torch", "modelpress")


@dataclass
class Results:
    """Prints rows and, with a file, adds them there and knows those of earlier runs."""

    path: Path | None = None
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.path and self.path.exists():
            self.rows = read(self.path)

    def add(self, row: Row) -> None:
        whole = {"at": _now(), "commit": commit()} | row
        self.rows.append(whole)
        line = json.dumps(whole)
        print(line, flush=True)
        if self.path:
            with self.path.open("a") as file:
                file.write(f"{line}\n")

    def found(self, **key: object) -> list[Row]:
        """The rows that have all of these."""
        return [row for row in self.rows if key.items() <= row.items()]


def read(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


@contextmanager
def watched() -> Iterator[Row]:
    """Afterwards the dict has `seconds`, `cpu_seconds`, `others_share` and `quiet`."""
    told: Row = {}
    start, spent = Load.now(), _spent()
    yield told
    end = Load.now()
    wall = end.at - start.at
    own = _spent() - spent
    others = (end.host - start.host - own) / (wall * (os.cpu_count() or 1))
    told["seconds"], told["cpu_seconds"] = round(wall, 2), round(own, 2)
    told["others_share"] = round(max(0.0, others), 3)
    told["quiet"] = others <= BUSY_SHARE


def about_this_machine() -> Row:
    cpu, flags, cores = environment()
    versions = {name: version(name) for name in _PACKAGES}
    return {
        "bench": "environment", "cpu": cpu, "flags": flags, "cores": cores, "versions": versions
    }  # fmt: skip


@cache
def commit() -> str:
    command = ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def _spent() -> float:
    """CPU seconds of this process and of all its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
