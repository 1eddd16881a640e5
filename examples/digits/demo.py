"""The whole way: start the service, send a model in two formats, check what comes back.

`make demo` calls this. It prints one table, leaves models and reports in demo-data/, and ends
with status 0 only if both jobs succeeded and the results hold up in stock ONNX Runtime.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime as ort
import torch
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = Path("demo-data")
MODELS = ("digits.onnx", "digits.pt")
RECIPE = {
    "passes": [
        {"method": "magnitude_pruning", "amount": 0.2},
        {"method": "graph_cleaning"},
        {"method": "static_quantization"},
    ]
}
START_SECONDS = 60
JOB_SECONDS = 240
MOST_LOST = 0.01

console = Console()


class DemoFailed(Exception):
    """Something did not go as promised; the message says what."""


@dataclass(frozen=True)
class Result:
    """One compressed model: its report, and its accuracy as measured here, not there."""

    name: str
    report: dict[str, Any]
    before: float
    after: float


@contextmanager
def service() -> Iterator[httpx.Client]:
    """`modelpress serve` on a free port, with a data folder that vanishes with it."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="modelpress-demo-") as folder:
        log = Path(folder) / "serve.log"
        command = [Path(sys.executable).with_name("modelpress"), "serve", "--host", "127.0.0.1"]
        with log.open("wb") as sink:
            server = subprocess.Popen(
                [*command, "--port", str(port), "--data-dir", f"{folder}/data"],
                stdout=sink, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                wait_until_ready(client, server)
                yield client
        except (DemoFailed, httpx.HTTPError):
            console.print(log.read_text(errors="replace")[-3000:], style="dim", markup=False)
            raise
        finally:
            stop(server)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_ready(client: httpx.Client, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise DemoFailed(f"the service ended by itself, status {server.returncode}")
        try:
            if client.get("/readyz").is_success:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.2)
    raise DemoFailed(f"the service was not ready after {START_SECONDS} s")


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def submit(client: httpx.Client, model: Path) -> dict[str, Any]:
    files = {
        "model": (model.name, model.read_bytes()),
        "calibration": ("calibration.npz", (HERE / "calibration.npz").read_bytes()),
        "evaluation": ("evaluation.npz", (HERE / "evaluation.npz").read_bytes()),
    }
    answer = client.post("/v1/jobs", data={"recipe": json.dumps(RECIPE)}, files=files)
    if answer.status_code != 202:
        raise DemoFailed(f"POST /v1/jobs answered {answer.status_code}: {answer.text[:500]}")
    return dict(answer.json())


def follow(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    """Poll until the job has ended, and show what it says."""
    deadline = time.monotonic() + JOB_SECONDS
    seen = ""
    while job["status"] in ("queued", "running"):
        if time.monotonic() > deadline:
            raise DemoFailed(f"{job['model']['name']} was still {job['status']}: {job}")
        if job["stage"] != seen:
            seen = job["stage"]
            console.print(f"  {job['progress']:4.0%}  {seen}", style="dim", highlight=False)
        time.sleep(0.25)
        job = client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()
    if job["status"] != "succeeded":
        raise DemoFailed(f"{job['model']['name']} {job['status']}: {job['error']}")
    console.print("  100%  succeeded", style="dim", highlight=False)
    return job


def download(client: httpx.Client, job: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for link, name in (
        ("model", "model.onnx"), ("report", "report.json"), ("report_html", "report.html"),
    ):  # fmt: skip
        answer = client.get(job["links"][link]).raise_for_status()
        (folder / name).write_bytes(answer.content)


def check(model: Path, folder: Path) -> Result:
    """Run original and result on the held-out digits in stock runtimes."""
    report = json.loads((folder / "report.json").read_text())
    held_out = np.load(HERE / "evaluation.npz")
    images, labels = held_out["x"], held_out["labels"]
    before = float(np.mean(answers(model, images) == labels))
    after = float(np.mean(answers(folder / "model.onnx", images) == labels))
    if (folder / "model.onnx").stat().st_size != report["after"]["bytes"]:
        raise DemoFailed(f"{model.name}: the file's size is not what the report says")
    if before - after > MOST_LOST:
        raise DemoFailed(f"{model.name}: accuracy fell from {before:.4f} to {after:.4f}")
    return Result(model.name, report, before, after)


def answers(model: Path, images: np.ndarray) -> np.ndarray:
    if model.suffix == ".pt":
        with torch.no_grad():
            return np.asarray(torch.jit.load(model)(torch.from_numpy(images)).argmax(1))
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": images})[0]).argmax(1)


def table(results: list[Result]) -> Table:
    shown = Table("before → after", *(result.name for result in results))
    columns = [figures(result) for result in results]
    for name in columns[0]:
        shown.add_row(name, *(column[name] for column in columns))
    return shown


def figures(result: Result) -> dict[str, str]:
    before, after = result.report["before"], result.report["after"]
    latency = result.report["latency"][0]
    return {
        "size": kilobytes(before["bytes"], after["bytes"]),
        "size, compressed": kilobytes(before["compressed_bytes"], after["compressed_bytes"]),
        "latency, median": f"{latency['before']['p50']:.3f} → {latency['after']['p50']:.3f} ms",
        "speed-up": f"{latency['speedup']:.2f}x ({latency['verdict']})",
        "accuracy": f"{result.before:.4f} → {result.after:.4f}",
        "outcome": result.report["verdict"]["outcome"],
    }


def kilobytes(before: int, after: int) -> str:
    return f"{before / 1000:.0f} → {after / 1000:.0f} kB"


def main() -> int:
    try:
        with service() as client:
            results = []
            for name in MODELS:
                console.print(f"sending {name}: prune 20 % of the weights, then int8")
                job = follow(client, submit(client, HERE / name))
                folder = RESULTS / name
                download(client, job, folder)
                results.append(check(HERE / name, folder))
    except (DemoFailed, httpx.HTTPError) as error:
        console.print(f"demo failed: {error}", style="bold red", markup=False)
        return 1
    console.print(table(results))
    for result in results:
        console.print(f"{result.name}: {result.report['verdict']['sentence']}", highlight=False)
    console.print(f"models and reports: {RESULTS}/*/ (open report.html in a browser)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
