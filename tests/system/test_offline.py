"""R19: nobody outside is told anything, and nothing is asked of anybody."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.service import Service

pytestmark = [pytest.mark.system, pytest.mark.R19]


def test_no_process_may_send_telemetry_and_none_leaves_an_id(
    start: Callable[..., Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    service = start()
    job = service.submit_digits()
    service.wait_for_a_child(job)
    said = [Path(f"/proc/{pid}/environ").read_bytes() for pid in service.processes()]
    assert len(said) >= 3  # web, worker, child
    assert all(b"ORT_DISABLE_TELEMETRY=1\0" in environment for environment in said)
    assert service.wait(job)["status"] == "succeeded"
    assert list(home.rglob("*")) == []
