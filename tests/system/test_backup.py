"""Backups as docs/deployment.md has them: made while the service runs, restored elsewhere."""

import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import NullPool, create_engine, text

from tests.app.test_api import SUMMARY, store
from tests.conftest import POSTGRES
from tests.servers import installed
from tests.system.service import DIGITS
from tests.system.web import Web
from tests.test_docs import DOCS, blocks
from worker.services import Services, build_services
from worker.settings import Settings

pytestmark = pytest.mark.system


def documented(word: str) -> str:
    """The commands that the documentation promises to be run here."""
    name = test_a_backup_of_a_running_service_is_restored_elsewhere.__name__
    scripts = [s for comment, s in blocks(DOCS / "deployment.md") if comment.endswith(name)]
    return next(script for script in scripts if word in script)


def run(script: str, folder: Path, **variables: str) -> None:
    programs = f"{Path(sys.executable).parent}:{installed('pg_dump', POSTGRES).parent}"
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"} | variables
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def fill(web: Web, services: Services) -> tuple[str, str]:
    """An uploaded model, a job with a result, and one that waits: the ids of the jobs."""
    model = (DIGITS / "digits.onnx").read_bytes()
    made = web.client.post("/v1/models", content=model).json()["id"]
    done, waiting = (
        web.client.post("/v1/jobs", data={"model_id": made}).json()["id"] for _ in range(2)
    )
    job = services.leases.claim(done, holder="h")
    assert job is not None
    file = store(services, b"a model")
    services.leases.publish(
        job, results={"model.onnx": file}, summary=SUMMARY, warnings=[], sandbox={}
    )
    return done, waiting


def seen(client: httpx.Client, job_id: str) -> tuple[object, ...]:
    """What a user has of a job: its record, its model, and its upload in the list."""
    job = client.get(f"/v1/jobs/{job_id}").json()
    model = client.get(job["links"]["model"])
    return job, model.status_code, model.content, client.get("/v1/models").json()


def kept(backing: dict[str, str], data: Path, backup: Path) -> dict[str, str]:
    """Back up and restore; the settings of the restored service."""
    if not backing:
        run(documented("VACUUM"), backup, DATA=str(data), BACKUP=str(backup))
        return {}
    url = backing["database_url"]
    plain = url.replace("+psycopg", "")
    run(documented("pg_dump"), backup, DATABASE=plain, STORE=backing["storage_url"])
    name = f"restored_{uuid4().hex}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    there = {
        "database_url": f"{url.rpartition('/')[0]}/{name}",
        "storage_url": backing["storage_url"] + "-restored",
    }
    variables = {
        "NEW_DATABASE": there["database_url"].replace("+psycopg", ""),
        "NEW_STORE": there["storage_url"],
        "MODELPRESS_DATABASE_URL": there["database_url"],
    }
    run(documented("pg_restore"), backup, **variables)
    return backing | there


def test_a_backup_of_a_running_service_is_restored_elsewhere(
    backing: dict[str, str], tmp_path: Path
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    for folder in (data, backup):
        folder.mkdir()
    services = build_services(Settings.model_validate({"data_dir": data} | backing))
    services.migrate()
    web = Web(data, backing)
    done, waiting = fill(web, services)
    before = seen(web.client, done)
    restored = kept(backing, data, backup)
    web.stop()
    services.close()

    elsewhere = build_services(Settings.model_validate({"data_dir": backup} | restored))
    web = Web(backup, restored)
    try:
        assert seen(web.client, done) == before
        job = elsewhere.leases.claim(waiting, holder="h")
        assert job is not None
        assert elsewhere.objects.stat(job.model.key) == job.model.bytes
    finally:
        web.stop()
        elsewhere.close()
