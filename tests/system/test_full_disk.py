"""R13: the disk fills up in an upload, in a job and in the record, and is freed again."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.system.service import DIGITS, Service, wait_until

pytestmark = [pytest.mark.system, pytest.mark.R13]
MIB = 1 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 MiB; what the test starts on it is gone before it is taken away."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "none", disk])
    if mounted.returncode != 0 and os.environ.get("CI") != "true":
        pytest.skip("this user may not mount a small disk")
    assert mounted.returncode == 0
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture
def service(small_disk: Path) -> Iterator[Service]:
    service = Service(small_disk / "data", free_disk_reserve_bytes=0)
    yield service
    service.kill_everything()


def fill(disk: Path, *, leave: int) -> None:
    """Take all of the disk but so many bytes."""
    (disk / "filler").unlink(missing_ok=True)
    free = os.statvfs(disk)
    with (disk / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail * free.f_frsize - leave))


def offered(service: Service, size: int) -> httpx.Response:
    """The answer to a job whose model has at least so many bytes."""
    content = (DIGITS / "digits.onnx").read_bytes()
    padding = b"\x32" + _varint(size) + bytes(size) if size else b""  # doc_string
    return service.client.post(
        "/v1/jobs", files={"model": ("net.onnx", content + padding)}, data={"recipe": "int8"}
    )


def _varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def test_a_full_disk_is_told_and_nothing_is_lost(service: Service, small_disk: Path) -> None:
    wait_until(lambda: service.client.get("/healthz").is_success)
    before = service.submit_digits()

    fill(small_disk, leave=2 * MIB)
    answer = offered(service, 8 * MIB)
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    ended = service.wait(before)
    code = ended["error"]["code"] if ended["error"] else None
    assert code in (None, "disk_limit", "data_too_large")

    fill(small_disk, leave=0)
    answers = {offered(service, 0).status_code for _ in range(3)}
    assert answers <= {503, 507}
    assert service.client.get("/healthz").is_success

    fill(small_disk, leave=350 * MIB)
    after = service.wait(service.submit_digits())
    assert (after["status"], after["error"]) == ("succeeded", None)
    with closing(sqlite3.connect(service.data_dir / "modelpress.db")) as record:
        assert record.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (jobs,) = record.execute("SELECT count(*) FROM jobs WHERE kind = 'compress'").fetchone()
    assert jobs == 2
    left = [path for path in (service.data_dir / "objects").rglob("*.part*") if path.is_file()]
    assert left == []
