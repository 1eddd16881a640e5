"""Real servers and a real browser for the tests: found, started on free ports, stopped.

Where one is not installed, its tests are left out with the reason, and the last lines of the
run say so; with `CI=true` or `MODELPRESS_REQUIRE_SERVERS=1` that is a failure.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.servers import free_port, installed, stop, wait_for_port
from tests.swift import swift

POSTGRES = "/usr/lib/postgresql/*/bin"


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The command line's cache is the user's: tests neither read nor fill it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """URL of a Redis server of our own, without persistence."""
    port = free_port()
    command = [str(installed("redis-server")), "--port", str(port), "--bind", "127.0.0.1"]
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [*command, "--save", "", "--appendonly", "no", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for_port(server, port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            stop(server)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """SQLAlchemy URL of a PostgreSQL server of our own, with an empty database."""
    initdb, postgres = installed("initdb", POSTGRES), installed("postgres", POSTGRES)
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, user)
        data = f"{folder}/data"
        subprocess.run(
            [initdb, "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True, capture_output=True, user=user, cwd=folder,
        )  # fmt: skip
        server = subprocess.Popen(
            [postgres, "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1"],
            stderr=subprocess.DEVNULL, user=user, cwd=folder,
        )  # fmt: skip
        try:
            wait_for_port(server, port)
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            stop(server)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """A store that speaks S3; the environment that makes boto3 use it."""
    with tempfile.TemporaryDirectory() as folder, swift(Path(folder)) as environment:
        yield environment


@pytest.fixture(scope="session")
def chromium() -> Path:
    """The browser to give Playwright as executable_path."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    return installed("chromium")


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    skipped: Sequence[pytest.TestReport] = terminalreporter.stats.get("skipped", [])
    reasons = {str(report.longrepr[2]).removeprefix("Skipped: ") for report in skipped}
    missing = sorted(reason for reason in reasons if reason.endswith("is not installed"))
    if missing:
        terminalreporter.write_line(f"LEFT OUT, {len(skipped)} tests: {'; '.join(missing)}")
