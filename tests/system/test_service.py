"""`modelpress serve` as real processes: from upload to download, and through many deaths."""

import os
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import boto3
import httpx
import onnxruntime as ort
import pytest

from tests.system.service import (
    UNRUNNABLE,
    Service,
    alive,
    descendants,
    wait_until,
)

pytestmark = pytest.mark.system


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
