"""What stops: a worker that goes on later (R4), a job that its owner cancels (R18)."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

from tests.chaos.surroundings import (
    HASTY,
    Acknowledged,
    Figures,
    Record,
    another_worker,
    offer,
    role,
)
from tests.system.service import Service, alive, descendants, wait_until

PATIENCE_SECONDS = 60


def stopped_workers(
    service: Service, record: Record, *, times: int, settings: dict[str, str]
) -> Figures:
    """R4: stop a worker in the midst of a job for two leases, and let it go on."""
    jobs, attempts = Acknowledged(), []
    for _ in range(times):
        one = Acknowledged()
        one.add(offer(service))
        wait_until(lambda one=one: record.statuses().get(one.ids[0]) == "running")
        attempts.append(_stopped_once(service, record, one, settings))
        jobs.ids += one.ids
    return {"bar": "R4", "times": times, "attempts": attempts, **record.figures(jobs)}


def _stopped_once(
    service: Service, record: Record, job: Acknowledged, settings: dict[str, str]
) -> int:
    """Attempts that the job took, once the stopped worker has had its say."""
    frozen = [
        pid for pid in descendants(service.process.pid) if role(pid) in ("worker", "child")
    ]
    _signal(frozen, signal.SIGSTOP)
    other = another_worker(service, settings)
    try:
        time.sleep(2 * HASTY["lease_seconds"])
        record.wait_for_the_end(job, seconds=PATIENCE_SECONDS)
        _signal(frozen, signal.SIGCONT)
        time.sleep(HASTY["lease_seconds"])
    finally:
        other.kill()
        other.wait()
    return record.attempts(job.ids[0])


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def random_cancels(service: Service, record: Record, *, cancels: int, seed: int = 0) -> Figures:
    """R18: cancel at random moments; the child is gone within five seconds."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    slowest, jobs = 0.0, Acknowledged()
    for _ in range(cancels):
        job = offer(service)
        assert job is not None
        jobs.add(job)
        time.sleep(chance.uniform(0, 3))
        service.client.post(f"/v1/jobs/{job}/cancel")
        began = time.monotonic()
        wait_until(lambda job=job: not _works(service, job, record), seconds=PATIENCE_SECONDS)
        slowest = max(slowest, time.monotonic() - began)
    return {
        "bar": "R18",
        "slowest_seconds": round(slowest, 1),
        "scratch_left": len(_files(service.data_dir / "scratch")),
        **record.figures(jobs),
    }


def _files(folder: Path) -> list[Path]:
    return list(folder.glob("*"))


def _works(service: Service, job: str, record: Record) -> bool:
    children = [pid for pid in descendants(service.process.pid) if role(pid) == "child"]
    return bool(alive(children)) or record.statuses()[job] in ("queued", "running")
