"""The bars: random kills, bounces of the broker, a worker that was stopped, cancels."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

from tests.chaos.surroundings import (
    CLEANING,
    HASTY,
    Record,
    Redis,
    another_worker,
    kill_one,
    offer,
    offer_any,
    role,
)
from tests.system.service import DIGITS, UNRUNNABLE, Service, alive, descendants, wait_until

Figures = dict[str, object]
HEALED_SECONDS = 60


def random_kills(
    service: Service,
    record: Record,
    *,
    kills: int,
    others: Mapping[str, Callable[[], bool]],
    seed: int = 0,
) -> Figures:
    """R1: kill what there is, at random moments, while jobs come in."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    done: Counter[str] = Counter()
    acknowledged: list[str] = []
    began = time.monotonic()
    while done.total() < kills:
        if len(acknowledged) < 3 + done.total() // 2:
            job = offer_any(service, len(acknowledged))
            acknowledged += [job] if job else []
        time.sleep(chance.uniform(0, 1.2))
        what = chance.choice(["child", "worker", "web", *others])
        killed = others[what]() if what in others else kill_one(service, what, chance)
        done[what] += killed
    seconds = time.monotonic() - began
    healed = record.wait_for_the_end(acknowledged, seconds=HEALED_SECONDS)
    return {
        "bar": "R1",
        "kills": dict(done),
        "seconds": round(seconds),
        "healed_seconds": healed,
        **record.figures(acknowledged),
    }


def broker_bounces(
    service: Service, record: Record, redis: Redis, *, bounces: int, seed: int = 0
) -> Figures:
    """R2: kill the broker in the moment in which a message is taken, and start it again."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    acknowledged: list[str] = []
    for _ in range(bounces):
        job = offer(service, UNRUNNABLE)
        acknowledged += [job] if job else []
        time.sleep(chance.uniform(0, 0.08))
        redis.kill()
        time.sleep(chance.uniform(0, 0.6))
        redis.start()
        time.sleep(chance.uniform(0.2, 1.0))
    healed = record.wait_for_the_end(acknowledged, seconds=HEALED_SECONDS + 2 * bounces)
    began = time.monotonic()
    last = offer(service, UNRUNNABLE)
    resumed = record.wait_for_the_end([last] if last else [], seconds=HEALED_SECONDS)
    return {
        "bar": "R2",
        "bounces": bounces,
        "healed_seconds": healed,
        "last_job_seconds": round(time.monotonic() - began, 1) if resumed is not None else None,
        "stuck": int(last is None or resumed is None),
        **record.figures(acknowledged),
    }


def frozen_broker(service: Service, record: Record, redis: Redis) -> Figures:
    """R3: a broker that takes connections and never answers."""
    redis.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    job = offer(service, UNRUNNABLE)
    answered = time.monotonic() - began
    ended = record.wait_for_the_end([job] if job else [], seconds=HEALED_SECONDS)
    redis.process.send_signal(signal.SIGCONT)
    return {
        "bar": "R3",
        "post_seconds": round(answered, 2),
        "job_seconds": ended,
        **record.figures([job] if job else []),
    }


def stopped_worker(service: Service, record: Record) -> Figures:
    """R4: stop a worker in the midst of a job for two leases, and let it go on."""
    job = offer(service, (DIGITS / "digits.onnx").read_bytes(), recipe=CLEANING)
    assert job is not None
    wait_until(lambda: record.statuses().get(job) == "running")
    frozen = [
        pid for pid in descendants(service.process.pid) if role(pid) in ("worker", "child")
    ]
    for pid in frozen:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    other = another_worker(service)
    try:
        time.sleep(2 * HASTY["lease_seconds"])
        ended = record.wait_for_the_end([job], seconds=HEALED_SECONDS)
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        time.sleep(HASTY["lease_seconds"])
        (attempt,) = record.query(f"SELECT attempt FROM jobs WHERE id = '{job}'")  # noqa: S608 - ours
    finally:
        other.kill()
        other.wait()
    return {
        "bar": "R4",
        "ended_seconds": ended,
        "attempts": attempt[0],
        **record.figures([job]),
    }


def random_cancels(service: Service, record: Record, *, cancels: int, seed: int = 0) -> Figures:
    """R18: cancel at random moments; the child is gone within five seconds."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    slowest, acknowledged = 0.0, []
    for _ in range(cancels):
        job = service.submit_digits()
        acknowledged.append(job)
        time.sleep(chance.uniform(0, 3))
        service.client.post(f"/v1/jobs/{job}/cancel")
        slowest = max(slowest, _seconds_until_idle(service, job, record))
    left = len(list((service.data_dir / "scratch").glob("*")))
    return {
        "bar": "R18",
        "slowest_seconds": round(slowest, 1),
        "scratch_left": left,
        **record.figures(acknowledged),
    }


def _seconds_until_idle(service: Service, job: str, record: Record) -> float:
    began = time.monotonic()
    wait_until(lambda: not _works(service, job, record), seconds=HEALED_SECONDS)
    return time.monotonic() - began


def _works(service: Service, job: str, record: Record) -> bool:
    children = [pid for pid in descendants(service.process.pid) if role(pid) == "child"]
    return bool(alive(children)) or record.statuses()[job] in ("queued", "running")
