"""What the drivers do to a service from outside, and what they read from its record."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from onnx import parser
from sqlalchemy import NullPool, create_engine, text

from tests.servers import free_port, installed, stop, wait_for_port
from tests.system.service import DIGITS, Service, descendants
from worker.jobs.database import connected
from worker.settings import Settings

#: Leases that heal within seconds instead of half a minute.
HASTY = {
    "lease_seconds": 4,
    "renew_seconds": 1,
    "reap_seconds": 1,
    "requeue_seconds": 2,
    "direct_seconds": 4,
    "max_losses": 50,
    "max_kills": 50,
    "max_restarts": 1000,
}
UNFINISHED = ("queued", "running", None)
Figures = dict[str, object]
_numbers = count()
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

    def freeze(self) -> None:
        """It takes connections and never answers."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def bounce(self) -> bool:
        self.kill()
        self.start()
        return True

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


@dataclass
class Acknowledged:
    """What a client was told is taken: jobs, and models that are looked at."""

    ids: list[str] = field(default_factory=list)

    def add(self, given: str | None) -> None:
        self.ids += [given] if given else []


def offer(service: Service) -> str | None:
    """Send a job that has a result; its id if it was acknowledged."""
    files = {"model": ("net.onnx", (DIGITS / "digits.onnx").read_bytes())}
    return _posted(service, "/v1/jobs", files=files, data={"recipe": CLEANING})


def offer_model(service: Service) -> str | None:
    """Send a model of its own, which a job of a second or so looks at; its id."""
    name = f"net_{next(_numbers)}"
    text = f'<ir_version: 8, opset_import: ["" : 17]> {name} (float[1,4] x) => (float[1,4] y)'
    model = parser.parse_model(text + "{ y = Relu(x) }").SerializeToString()
    return _posted(service, "/v1/models", files={"model": ("net.onnx", model)})


def offer_any(service: Service, number: int) -> str | None:
    """Every fifth has a result; that takes as long as its measuring, the others a second."""
    return offer(service) if number % 5 == 4 else offer_model(service)


def _posted(service: Service, path: str, **content: Any) -> str | None:
    with suppress(httpx.HTTPError), httpx.Client(timeout=30) as client:
        answer = client.post(f"{service.client.base_url}{path}", **content)
        if answer.status_code in (201, 202):
            return str(answer.json()["id"])
    return None


class Record:
    """The database of a service, read past it."""

    def __init__(self, service: Service, backing: Mapping[str, str]) -> None:
        self.url = Settings(data_dir=service.data_dir, **backing).database  # type: ignore[arg-type]

    def query(self, question: str) -> list[tuple[object, ...]]:
        with connected(self.url) as database:
            return [tuple(row) for row in database.read(text(question))]

    def statuses(self) -> dict[str, str]:
        """Of jobs, and of models by what the job that looks at them found."""
        jobs = self.query("SELECT id, status FROM jobs WHERE kind = 'compress'")
        models = self.query(
            "SELECT id, CASE WHEN inspection IS NOT NULL THEN 'succeeded' "
            "WHEN inspection_error IS NOT NULL THEN 'failed' ELSE 'queued' END "
            "FROM artifacts WHERE kind = 'model'"
        )
        return {str(one): str(status) for one, status in (*models, *jobs)}

    def open(self, given: Acknowledged) -> int:
        """How many of these have not ended; all, while nobody can say."""
        with suppress(Exception):  # the database may be on its way up
            statuses = self.statuses()
            return sum(statuses.get(one) in UNFINISHED for one in given.ids)
        return len(given.ids)

    def running(self) -> int:
        return len(self.query("SELECT id FROM jobs WHERE status = 'running'"))

    def open_jobs(self) -> list[str]:
        """What is on record of the jobs that have not ended, with their latest events."""
        found = self.query(
            "SELECT j.id, j.status, j.message, j.attempt, e.cause, e.at FROM jobs j "
            "JOIN job_events e ON e.job_id = j.id WHERE j.status IN ('queued', 'running') "
            "ORDER BY j.id, e.version DESC"
        )
        return [" ".join(map(str, row)) for row in found[:20]]

    def attempts(self, job: str) -> int:
        ((attempt,),) = self.query(f"SELECT attempt FROM jobs WHERE id = '{job}'")  # noqa: S608 - ours
        return int(str(attempt))

    def wait_for_the_end(self, given: Acknowledged, *, seconds: float) -> float | None:
        """Seconds until all of these had ended; None if some had not in time."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if self.open(given) == 0:
                return round(time.monotonic() - began, 1)
            time.sleep(0.3)
        return None

    def errors(self, given: list[str]) -> list[str]:
        """Why some of these have failed."""
        found = self.query(
            "SELECT id, CAST(error AS TEXT) FROM jobs WHERE error IS NOT NULL UNION ALL "
            "SELECT id, CAST(inspection_error AS TEXT) FROM artifacts "
            "WHERE inspection_error IS NOT NULL"
        )
        return [str(error) for one, error in found if one in given]

    def figures(self, given: Acknowledged) -> Figures:
        """What the bars ask of the record."""
        statuses, acknowledged = self.statuses(), given.ids
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
            "errors": self.errors(acknowledged),
        }


def another_worker(service: Service, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """A second worker of the same service, started apart."""
    given = {
        f"MODELPRESS_{name.upper()}": str(value)
        for name, value in {**HASTY, **settings}.items()
    }
    command = [sys.executable, "-m", "celery", "-A", "worker.broker", "worker"]
    return subprocess.Popen(
        [*command, "--without-gossip", "--without-mingle"],
        env={**os.environ, "MODELPRESS_DATA_DIR": str(service.data_dir), **given},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
