"""What the drivers do to a service from outside, and what they read from its record."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import httpx
from sqlalchemy import NullPool, create_engine, text

from tests.servers import free_port, installed, stop, wait_for_port
from tests.system.service import DIGITS, UNRUNNABLE, Service, descendants
from worker.jobs.database import connected
from worker.settings import Settings

#: Leases that heal within seconds instead of half a minute.
HASTY = {
    "lease_seconds": 4,
    "renew_seconds": 1,
    "reap_seconds": 1,
    "requeue_seconds": 2,
    "direct_seconds": 4,
    "max_losses": 20,
    "max_restarts": 1000,
}
CLEANING = '{"passes": [{"method": "graph_cleaning"}]}'


class Redis:
    """A broker without any persistence that can be killed, and started on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [installed("redis-server"), "--port", str(self._port), "--bind", "127.0.0.1",
             "--save", "", "--appendonly", "no", "--dir", str(self._folder)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for_port(self.process, self._port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        stop(self.process)


def role(pid: int) -> str | None:
    """Which part of the service a process is."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        marks = {b"worker.child": "child", b"app.web": "web", b"celery": "worker"}
        return next((name for mark, name in marks.items() if mark in words), None)
    return None


def kill_one(service: Service, what: str, chance: random.Random) -> bool:
    """Kill -9 one process of this role, if there is any."""
    found = [pid for pid in descendants(service.process.pid) if role(pid) == what]
    if not found:
        return False
    with suppress(ProcessLookupError):
        os.kill(chance.choice(found), signal.SIGKILL)
    return True


def cut_connections(database_url: str) -> bool:
    """End every connection that somebody else has to this PostgreSQL database."""
    engine = create_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
    return True


def offer(service: Service, model: bytes, **fields: str) -> str | None:
    """Send a job; its id if it was acknowledged."""
    with suppress(httpx.HTTPError), httpx.Client(timeout=30) as client:
        url = f"{service.client.base_url}/v1/jobs"
        answer = client.post(url, files={"model": ("net.onnx", model)}, data=fields)
        if answer.status_code == 202:
            return str(answer.json()["id"])
    return None


def offer_any(service: Service, number: int) -> str | None:
    """Every third job has a result, the others fail as soon as they are looked at."""
    if number % 3:
        return offer(service, UNRUNNABLE)
    return offer(service, (DIGITS / "digits.onnx").read_bytes(), recipe=CLEANING)


class Record:
    """The database of a service, read past it."""

    def __init__(self, service: Service, backing: Mapping[str, str]) -> None:
        self.url = Settings(data_dir=service.data_dir, **backing).database  # type: ignore[arg-type]

    def query(self, question: str) -> list[tuple[object, ...]]:
        with connected(self.url) as database:
            return [tuple(row) for row in database.read(text(question))]

    def statuses(self) -> dict[str, str]:
        found = self.query("SELECT id, status FROM jobs WHERE kind = 'compress'")
        return {str(job): str(status) for job, status in found}

    def wait_for_the_end(self, jobs: Iterable[str], *, seconds: float) -> float | None:
        """Seconds until all of these had ended; None if some had not in time."""
        began, wanted = time.monotonic(), set(jobs)
        while time.monotonic() - began < seconds:
            with suppress(Exception):  # the database may be on its way up
                statuses = self.statuses()
                if all(statuses.get(job) not in ("queued", "running", None) for job in wanted):
                    return round(time.monotonic() - began, 1)
            time.sleep(0.3)
        return None

    def figures(self, acknowledged: Iterable[str]) -> dict[str, object]:
        """What the bars ask of the record."""
        statuses, acknowledged = self.statuses(), list(acknowledged)
        twice = self.query(
            "SELECT job_id FROM job_events WHERE cause = 'published' "
            "GROUP BY job_id HAVING count(*) > 1"
        )
        given_up = self.query("SELECT id FROM jobs WHERE message LIKE '%was lost%times%'")
        return {
            "acknowledged": len(acknowledged),
            "lost": sum(job not in statuses for job in acknowledged),
            "ended": dict(Counter(statuses[job] for job in acknowledged if job in statuses)),
            "published_twice": len(twice),
            "worker_lost": len(given_up),
        }


def another_worker(service: Service) -> subprocess.Popen[bytes]:
    """A second worker of the same embedded service, started apart."""
    given = {f"MODELPRESS_{name.upper()}": str(value) for name, value in HASTY.items()}
    command = [sys.executable, "-m", "celery", "-A", "worker.broker", "worker"]
    return subprocess.Popen(
        [*command, "--without-gossip", "--without-mingle"],
        env={**os.environ, "MODELPRESS_DATA_DIR": str(service.data_dir), **given},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
