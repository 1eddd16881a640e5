"""`modelpress gc` over real files."""

import json
import os
import time
from pathlib import Path

import pytest

from app.cli import main
from tests.worker.test_jobs import a_job
from worker.jobs import NewArtifact
from worker.services import Services, build_services
from worker.settings import Settings


@pytest.fixture
def services(tmp_path: Path) -> Services:
    services = build_services(Settings(data_dir=tmp_path))
    services.migrate()
    return services


def keep(services: Services, content: bytes, *, age_days: float) -> NewArtifact:
    with services.objects.receive("local") as incoming:
        incoming.write(content)
        kept = incoming.commit()
    path = services.objects.local_path(kept.key)
    assert path is not None
    then = time.time() - age_days * 24 * 3600
    os.utime(path, (then, then))
    return NewArtifact(
        name="m", format="onnx", bytes=kept.bytes, sha256=kept.sha256, key=kept.key
    )


def test_gc_tells_then_removes_only_old_files_that_no_record_knows(
    services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = keep(services, b"known", age_days=9)
    fresh = keep(services, b"fresh", age_days=0)
    orphan = keep(services, b"orphan", age_days=2)
    services.jobs.create(a_job(model=known))
    stray = tmp_path / "objects" / "mine.txt"
    stray.write_text("not ours")
    os.utime(stray, (0, 0))

    command = ["gc", "--json", "--data-dir", str(tmp_path)]
    for arguments, remains in (([*command, "--dry-run"], True), (command, False)):
        assert main(arguments) == 0
        told = json.loads(capsys.readouterr().out)
        assert told == {"expired": [], "orphans": {orphan.key: 6}, "bytes": 6}
        path = services.objects.local_path(orphan.key)
        assert path is not None
        assert path.exists() == remains
    for file in (known, fresh):
        assert services.objects.stat(file.key) == 5
    assert stray.exists()
