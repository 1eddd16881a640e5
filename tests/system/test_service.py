"""`modelpress serve` as real processes: from upload to download, and through many deaths."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import httpx
import onnxruntime as ort
import pytest
from onnx import parser
from sqlalchemy import NullPool, create_engine, text

from tests.swift import BUCKET

pytestmark = pytest.mark.system

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


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services over one data folder; what still runs at the end is killed."""
    started: list[Service] = []

    def start(**settings: object) -> Service:
        service = Service(tmp_path / "data", **settings)
        started.append(service)
        return service

    yield start
    for service in started:
        service.client.close()
        if service.process.poll() is None:
            service.kill_everything()


@pytest.fixture(params=["embedded", "scaled"])
def backing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings of the embedded default, and of a real Redis, PostgreSQL and S3 store."""
    if request.param == "embedded":
        return {}
    server = request.getfixturevalue("postgres_server")
    name = f"service_{uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    for variable, value in request.getfixturevalue("s3_server").items():
        monkeypatch.setenv(variable, value)
    return {
        "broker_url": request.getfixturevalue("redis_server"),
        "database_url": server.rpartition("/")[0] + f"/{name}",
        "storage_url": f"s3://{BUCKET}/{name}",
    }


def test_from_upload_to_download_through_a_kill_of_everything_in_mid_job(
    start: Callable[..., Service], backing: dict[str, str], tmp_path: Path
) -> None:
    first = start(**backing)
    running = first.submit_digits()
    queued = [first.submit(UNRUNNABLE) for _ in range(3)]
    first.wait_for_a_child(running)
    pids = [first.process.pid, *first.processes()]
    first.kill_everything()
    wait_until(lambda: alive(pids) == [], seconds=10)

    second = start(**backing)
    job = second.wait(running)
    assert job["attempt"] == 2
    check_result(second, job, tmp_path / "model.onnx")
    for job_id in queued:
        ended = second.wait(job_id)
        assert (ended["status"], ended["attempt"]) == ("failed", 1)
        assert ended["error"]["code"] == "unsupported_operator"
    assert list((second.data_dir / "scratch").iterdir()) == []
    assert attempts_stored(second, backing.get("storage_url", "")) == 1
    if not backing:
        assert causes(second.data_dir, running).count("published") == 1
    assert second.stop() == 0


def attempts_stored(service: Service, storage_url: str) -> int:
    """Of how many attempts the store holds results."""
    if not storage_url:
        return len(list((service.data_dir / "objects/local/results").glob("*/*")))
    bucket, _, prefix = storage_url.removeprefix("s3://").partition("/")
    found = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/local/results/")
    return len({key["Key"].rpartition("/")[0] for key in found["Contents"]})


def check_result(service: Service, job: dict[str, Any], copy: Path) -> None:
    assert (job["status"], job["error"], job["progress"]) == ("succeeded", None, 1)
    model = service.client.get(job["links"]["model"])
    copy.write_bytes(model.content)
    ort.InferenceSession(copy, providers=["CPUExecutionProvider"])
    report = service.client.get(job["links"]["report"]).json()
    assert job["summary"]["bytes_after"] == report["after"]["bytes"] == len(model.content)


def causes(data_dir: Path, job_id: str) -> list[str]:
    """What changed a job, in order."""
    question = "SELECT cause FROM job_events WHERE job_id = ? ORDER BY version"
    with closing(sqlite3.connect(data_dir / "modelpress.db")) as connection:
        return [cause for (cause,) in connection.execute(question, [job_id])]


def test_a_killed_worker_is_replaced_and_its_job_goes_on(
    start: Callable[..., Service],
) -> None:
    service = start()
    job_id = service.submit_digits()
    service.wait_for_a_child(job_id)
    worker = next(pid for pid in descendants(service.process.pid) if is_worker(pid))
    children = descendants(worker)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: alive([worker, *children]) == [], seconds=10)
    wait_until(lambda: service.job(job_id)["attempt"] == 2)
    service.wait_for_a_child(job_id)
    service.client.post(f"/v1/jobs/{job_id}/cancel")
    assert service.wait(job_id, seconds=10)["status"] == "canceled"


def is_worker(pid: int) -> bool:
    return b"celery" in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_web_and_worker_follow_a_killed_parent_and_hand_the_running_job_back(
    start: Callable[..., Service],
) -> None:
    service = start(stop_grace_seconds=0)
    job_id = service.submit_digits()
    service.wait_for_a_child(job_id)
    pids = service.processes()
    service.process.kill()
    service.process.wait()
    wait_until(lambda: alive(pids) == [], seconds=30)
    again = start()
    again.wait_for_a_child(job_id)
    assert [event for event in causes(again.data_dir, job_id) if event != "progress"] == [
        "created", "claimed", "released", "claimed",
    ]  # fmt: skip


def test_a_killed_web_process_refuses_no_request_and_leaks_no_file(
    start: Callable[..., Service],
) -> None:
    service = start()
    service.submit(UNRUNNABLE)
    web = next(pid for pid in descendants(service.process.pid) if not is_worker(pid))
    os.kill(web, signal.SIGKILL)
    with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
        assert client.get("/healthz").status_code == 200
    stored = [service.data_dir, *service.data_dir.rglob("*")]
    assert [path for path in stored if path.exists() and path.lstat().st_mode & 0o077] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - that it is refused is the test
def test_without_keys_it_stays_on_loopback(start: Callable[..., Service], host: str) -> None:
    service = start(host=host)
    assert service.process.wait(30) == 2
    assert "MODELPRESS_ALLOW_OPEN" in service.log.read_text()


def test_a_data_folder_has_one_instance(start: Callable[..., Service]) -> None:
    first = start()
    second = start()
    assert second.process.wait(30) == 2
    assert "another instance" in second.log.read_text()
    assert first.process.poll() is None
