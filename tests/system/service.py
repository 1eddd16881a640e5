"""A real `modelpress serve`, and what clients, operators and accidents do to it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from onnx import parser

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
SERVE = "import sys; from app.cli import main; sys.exit(main())"
# Recognised as ONNX by its bytes; that no runtime knows the operator shows in the child only.
UNRUNNABLE = parser.parse_model(
    '<ir_version: 8, opset_import: ["" : 17]> '
    "net (float[1,4] x) => (float[1,4] y) { y = NoSuchOperator(x) }"
).SerializeToString()
ENDED = ("succeeded", "failed", "canceled")


class Service:
    """A running `modelpress serve`, and what a client does with it."""

    def __init__(self, data_dir: Path, **settings: object) -> None:
        self.data_dir = data_dir
        self.log = data_dir.parent / "serve.log"
        given = {f"MODELPRESS_{name.upper()}": str(value) for name, value in settings.items()}
        given.setdefault("MODELPRESS_MEASURING_LOCK", str(data_dir.parent / "measuring.lock"))
        environment = {**os.environ, "MODELPRESS_PORT": "0", **given}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, "serve", "--data-dir", str(data_dir)],
                stdout=log, stderr=log, env=environment, start_new_session=True,
            )  # fmt: skip
        wait_until(lambda: self._address() is not None or self.process.poll() is not None)
        self.client = httpx.Client(base_url=self._address() or "", timeout=30)

    def _address(self) -> str | None:
        found = re.search(r"http://\S+", self.log.read_text())
        return found.group() if found else None

    def submit(self, model: bytes, **fields: str) -> str:
        files = {"model": ("net.onnx", model)}
        if fields:
            files["calibration"] = ("c.npz", (DIGITS / "calibration.npz").read_bytes())
        answer = self.client.post("/v1/jobs", files=files, data=fields)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def submit_digits(self) -> str:
        recipe = {"passes": [{"method": "magnitude_pruning", "amount": 0.2}]}
        return self.submit((DIGITS / "digits.onnx").read_bytes(), recipe=json.dumps(recipe))

    def job(self, job_id: str) -> dict[str, Any]:
        view: dict[str, Any] = self.client.get(f"/v1/jobs/{job_id}").json()
        return view

    def wait(self, job_id: str, *, seconds: float = 120) -> dict[str, Any]:
        wait_until(lambda: self.job(job_id)["status"] in ENDED, seconds=seconds)
        return self.job(job_id)

    def wait_for_a_child(self, job_id: str) -> None:
        """Until the job is so far that its child works on the model."""
        wait_until(lambda: 0.05 < self.job(job_id)["progress"] < 1)

    def processes(self) -> list[int]:
        return descendants(self.process.pid)

    def kill_everything(self) -> None:
        for pid in [self.process.pid, *self.processes()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.client.close()

    def stop(self) -> int:
        self.process.terminate()
        self.client.close()
        return self.process.wait(60)


def descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        found = [int(c) for task in tasks for c in (task / "children").read_text().split()]
    except FileNotFoundError:
        return []
    return found + [deeper for child in found for deeper in descendants(child)]


def alive(pids: list[int]) -> list[int]:
    def lives(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    return [pid for pid in pids if lives(pid)]


def wait_until(happened: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)
