"""R19 and R16: nobody outside is told anything, and no key is written down anywhere."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.surroundings import role
from tests.system.service import Service
from worker.jobs import KeyStore, migrate
from worker.jobs.database import connected
from worker.settings import Settings

pytestmark = [pytest.mark.system, pytest.mark.R16, pytest.mark.R19]
CLOUD = "a-secret-of-the-object-store"


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A key of the service that is going to be started."""
    url = Settings(data_dir=tmp_path / "data").database
    (tmp_path / "data").mkdir()
    migrate(url)
    with connected(url) as database:
        return KeyStore(database).create("ada", "laptop")[1]


def test_no_process_sends_telemetry_and_none_writes_a_key_down(
    start: Callable[..., Service], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CLOUD)
    service = start(log_format="json")
    service.client.headers["Authorization"] = f"Bearer {key}"
    job = service.submit_digits()
    service.wait_for_a_child(job)
    said = environments(service)
    assert len(said) >= 3  # web, worker, child
    assert all(b"ORT_DISABLE_TELEMETRY=1\0" in environment for environment in said.values())
    told = {role(pid) for pid, known in said.items() if CLOUD.encode() in known}
    assert "child" not in told
    assert service.wait(job)["status"] == "succeeded"
    failed = service.submit(b"\x08\x08\x3a\x02\x0a\x00")
    assert service.wait(failed)["status"] == "failed"
    assert service.client.get("/v1/jobs/unknown").status_code == 404
    secret = key[len("mp_12345678_") :]
    assert written(tmp_path, secret) == written(tmp_path, CLOUD) == []
    assert list(home.rglob("*")) == []


def environments(service: Service) -> dict[int, bytes]:
    return {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in service.processes()}


def written(folder: Path, secret: str) -> list[Path]:
    """Files, of records and logs too, that hold a secret."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if secret.encode() in path.read_bytes()]
