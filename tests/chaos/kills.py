"""What dies: single processes at random (R1), everything at once (R5), the broker (R2, R3)."""

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

from tests.chaos.surroundings import (
    Acknowledged,
    Figures,
    Record,
    Redis,
    kill_one,
    offer_any,
    offer_model,
)
from tests.system.service import Service, alive, wait_until

HEALED_SECONDS = 60
#: What is offered at a time: so much has to be done within the minute after the last kill.
OPEN_JOBS = 3
#: Kills in a row before one job gets the time to end: else few would ever come and go.
BURST = 5
BREATH_SECONDS = 20


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
    jobs = Acknowledged()
    began = time.monotonic()
    while done.total() < kills and time.monotonic() - began < 60 + 10 * kills:
        while record.open(jobs) < OPEN_JOBS and (job := offer_any(service, len(jobs.ids))):
            jobs.add(job)
        _wait_for_work(record)
        time.sleep(chance.uniform(0, 1.5))
        what = chance.choice(["child", "worker", "web", *others])
        killed = others[what]() if what in others else kill_one(service, what, chance)
        done[what] += killed
        if killed and done.total() % BURST == 0:
            _wait_for_an_end(record, jobs)
    seconds = time.monotonic() - began
    healed = record.wait_for_the_end(jobs, seconds=HEALED_SECONDS)
    return {
        "bar": "R1",
        "kills": dict(done),
        "seconds": round(seconds),
        "healed_seconds": healed,
        **record.figures(jobs),
        "open": [] if healed is not None else record.open_jobs(),
    }


def _wait_for_work(record: Record) -> None:
    """Until a job runs, so that a kill meets one; not for ever, since starting dies as well."""
    with suppress(Exception, AssertionError):  # the database may be away, or nothing runs
        wait_until(lambda: record.running() > 0, seconds=5)


def _wait_for_an_end(record: Record, jobs: Acknowledged) -> None:
    before = record.open(jobs)
    with suppress(AssertionError):
        wait_until(lambda: record.open(jobs) < before, seconds=BREATH_SECONDS)


def broker_bounces(
    service: Service, record: Record, redis: Redis, *, bounces: int, seed: int = 0
) -> Figures:
    """R2: kill the broker in the moment in which a message is taken, and start it again."""
    chance = random.Random(seed)  # noqa: S311 - moments, not secrets
    jobs = Acknowledged()
    slowest, stuck = 0.0, 0
    for _ in range(bounces):
        one = Acknowledged()
        one.add(offer_model(service))
        time.sleep(chance.uniform(0, 0.08))
        redis.kill()
        time.sleep(chance.uniform(0, 2))
        redis.start()
        resumed = record.wait_for_the_end(one, seconds=HEALED_SECONDS)
        stuck += resumed is None
        slowest = max(slowest, resumed or 0)
        jobs.ids += one.ids
    return {
        "bar": "R2",
        "bounces": bounces,
        "stuck": stuck,
        "slowest_seconds": slowest,
        **record.figures(jobs),
    }


def silent_broker(service: Service, record: Record) -> Figures:
    """R3: a broker that is not there, or takes connections and never answers."""
    wait_until(lambda: service.client.get("/healthz").is_success)
    jobs = Acknowledged()
    began = time.monotonic()
    jobs.add(offer_model(service))
    answered = time.monotonic() - began
    return {
        "bar": "R3",
        "post_seconds": round(answered, 2),
        "job_seconds": record.wait_for_the_end(jobs, seconds=HEALED_SECONDS),
        **record.figures(jobs),
    }


def kill_of_everything(
    start: Callable[[], Service], record: Callable[[Service], Record], *, queued: int
) -> Figures:
    """R5: kill every process with two jobs running and many waiting; start again, wait."""
    first = start()
    jobs = Acknowledged()
    for number in range(queued + 2):
        jobs.add(offer_any(first, number))
    seen = record(first)
    wait_until(lambda: seen.running() >= 1)
    pids = [first.process.pid, *first.processes()]
    waiting = seen.open(jobs)
    first.kill_everything()
    wait_until(lambda: not alive(pids), seconds=10)
    second = start()
    patience = HEALED_SECONDS + 8 * queued
    ended = record(second).wait_for_the_end(jobs, seconds=patience)
    return {
        "bar": "R5",
        "open_at_the_kill": waiting,
        "ended_seconds": ended,
        **record(second).figures(jobs),
    }
