"""R22: the version before the newest schema beside this one, over one database, with kills.

    python -m benchmarks.mixed_versions [REVISION]

Once an old worker serves a new web process, once the other way round. Prints a JSON line each.
Without a revision it is the last one before the newest migration; git has its files.
"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import httpx

from tests.servers import free_port, stop, wait_for_port

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "examples" / "digits" / "digits.onnx"
VERSIONS = ROOT / "worker" / "jobs" / "migrations" / "versions"
COMMANDS = {
    "web": ["-m", "app.web"],
    "old web": ["-m", "uvicorn", "--factory", "app.main:create_app"],
    "worker": ["-m", "celery", "-A", "worker.broker", "worker", "--without-gossip"],
}
ENDED = ("succeeded", "failed", "canceled")


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True, text=True)
    return done.stdout.strip()


def before_the_newest_schema() -> str:
    newest = max(VERSIONS.glob("v*.py")).relative_to(ROOT)
    added = git("log", "-1", "--format=%H", "--diff-filter=A", "--", str(newest))
    return git("rev-parse", f"{added}^")


def checked_out(revision: str, folder: Path) -> Path:
    archive = subprocess.run(
        ["git", "archive", revision, "app", "worker"], cwd=ROOT, capture_output=True, check=True
    )
    folder.mkdir()
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return folder


class Part:
    """The web process or the worker of one version; it can be killed and started again."""

    def __init__(self, command: list[str], code: Path, environment: dict[str, str]) -> None:
        self._command = [sys.executable, *command]
        self._code = code
        self._environment = os.environ | environment | {"PYTHONPATH": str(code)}
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            self._command, cwd=self._code, env=self._environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        return self.process

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.start()


def published(folder: Path) -> list[int]:
    """How often each job had its result published."""
    asked = "SELECT count(*) FROM job_events WHERE cause = 'published' GROUP BY job_id"
    with closing(sqlite3.connect(folder / "modelpress.db")) as connection:
        return [count for (count,) in connection.execute(asked)]


def ran(web: Part, worker: Part, port: int, *, jobs: int) -> dict[str, object]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        made = []
        for number in range(jobs):
            wait_for_port(web.process, port)
            files = {"model": ("m.onnx", MODEL.read_bytes())}
            answer = client.post("/v1/jobs", files=files, data={"recipe": "prune-l1"})
            made.append(answer.json()["id"])
            if number % 3 == 1:
                worker.kill()
            if number % 3 == 2:
                web.kill()
        wait_for_port(web.process, port)
        deadline = time.monotonic() + 900
        states: list[str] = []
        while time.monotonic() < deadline:
            states = [client.get(f"/v1/jobs/{job}").json()["status"] for job in made]
            if all(state in ENDED for state in states):
                break
            time.sleep(0.5)
    return {"jobs": jobs, "states": dict(Counter(states)), "kills": 2 * (jobs // 3)}


def side_by_side(old: Path, *, new: str, jobs: int = 9) -> dict[str, object]:
    """`new` is the part of this version: web or worker."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        environment = {
            "MODELPRESS_DATA_DIR": name,
            "MODELPRESS_PORT": str(port),
            "MODELPRESS_LEASE_SECONDS": "6",
            "MODELPRESS_RENEW_SECONDS": "2",
            "MODELPRESS_REAP_SECONDS": "2",
        }
        migrate = [sys.executable, "-m", "worker.jobs"]
        subprocess.run(migrate, cwd=ROOT, env=os.environ | environment, check=True)
        old_web = [*COMMANDS["old web"], "--port", str(port)]
        web = Part(
            COMMANDS["web"] if new == "web" else old_web,
            ROOT if new == "web" else old,
            environment,
        )
        worker = Part(COMMANDS["worker"], ROOT if new == "worker" else old, environment)
        try:
            found = ran(web, worker, port, jobs=jobs)
        finally:
            for part in (web, worker):
                stop(part.process, seconds=60)
        duplicates = sum(count > 1 for count in published(folder))
    return {"bar": "R22", "new": new} | found | {"duplicates": duplicates}


def main(revision: str | None = None) -> None:
    revision = revision or before_the_newest_schema()
    with tempfile.TemporaryDirectory() as folder:
        old = checked_out(revision, Path(folder) / "old")
        for new in ("web", "worker"):
            print(json.dumps(side_by_side(old, new=new) | {"old": revision[:12]}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2])
