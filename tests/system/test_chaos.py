"""Nothing is lost and nothing is done twice, whatever dies: the bars, each as one JSON line.

`MODELPRESS_CHAOS=large` (`make chaos`, `make chaos BAR=R1`) takes the sizes of a release.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from tests.chaos.kills import (
    broker_bounces,
    kill_of_everything,
    random_kills,
    silent_broker,
)
from tests.chaos.soak import soak
from tests.chaos.stops import random_cancels, stopped_workers
from tests.chaos.surroundings import HASTY, Figures, Record, Redis, cut_connections
from tests.system.service import Service

pytestmark = pytest.mark.system
LARGE = os.environ.get("MODELPRESS_CHAOS") == "large"

#: Where the backing has little to do with it, CI takes the embedded one only.
backings = pytest.mark.parametrize(
    "backing", ["embedded", "scaled"] if LARGE else ["embedded"], indirect=True
)

Start = Callable[..., Service]
Said = Callable[[Figures], Figures]


def size(small: int, large: int) -> int:
    return large if LARGE else small


@pytest.fixture
def said(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Said:
    """Print the line of a bar, and check what all of them ask."""

    def said(figures: Figures) -> Figures:
        backing = getattr(request.node, "callspec", None)
        line = {**figures, "backing": backing.params.get("backing") if backing else "redis"}
        with capsys.disabled():
            print("\n" + json.dumps(line), flush=True)  # noqa: T201 - the line of the bar
        assert (figures["lost"], figures["published_twice"]) == (0, 0)
        return figures

    return said


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    redis = Redis(tmp_path)
    yield redis
    redis.stop()


@pytest.mark.R1
def test_random_kills_lose_nothing(
    start: Start, backing: dict[str, str], redis: Redis, said: Said
) -> None:
    others: dict[str, Callable[[], bool]] = {}
    kills = size(6, 40)
    if backing:
        backing = backing | {"broker_url": redis.url}
        database = backing["database_url"]
        others = {"broker": redis.bounce, "database": lambda: cut_connections(database)}
        kills = size(4, 40)
    service = start(**backing, **HASTY)
    figures = said(random_kills(service, Record(service, backing), kills=kills, others=others))
    assert figures["healed_seconds"] is not None
    assert set(figures["ended"]) == {"succeeded"}


@pytest.mark.R2
@backings
def test_a_worker_is_never_deaf_after_its_broker_was_killed(
    start: Start, backing: dict[str, str], redis: Redis, said: Said
) -> None:
    backing = backing | {"broker_url": redis.url}
    service = start(**backing, **HASTY)
    record = Record(service, backing)
    figures = said(broker_bounces(service, record, redis, bounces=size(3, 30)))
    assert figures["stuck"] == 0


@pytest.mark.R3
@backings
def test_a_job_is_taken_and_done_while_the_broker_is_absent_or_frozen(
    start: Start, backing: dict[str, str], redis: Redis, said: Said
) -> None:
    backing = backing | {"broker_url": redis.url}
    redis.kill()
    service = start(**backing, **HASTY)
    record = Record(service, backing)
    absent = said(silent_broker(service, record))
    assert absent["ended"] == {"succeeded": 1}
    redis.start()
    redis.freeze()
    frozen = said(silent_broker(service, record))
    redis.thaw()
    assert frozen["ended"] == {"succeeded": 1}


@pytest.mark.R4
@backings
def test_a_worker_that_was_stopped_and_goes_on_publishes_nothing(
    start: Start, backing: dict[str, str], said: Said
) -> None:
    service = start(**backing, **HASTY)
    times = size(1, 20)
    record = Record(service, backing)
    figures = said(stopped_workers(service, record, times=times, settings=backing))
    assert figures["ended"] == {"succeeded": times}
    assert results_stored(service, backing) == times


def results_stored(service: Service, backing: dict[str, str]) -> int:
    """Of how many attempts the store holds results."""
    if not backing:
        return len(list((service.data_dir / "objects/local/results").glob("*/*")))
    bucket, _, prefix = backing["storage_url"].removeprefix("s3://").partition("/")
    pages = boto3.client("s3").get_paginator("list_objects_v2")
    found = pages.paginate(Bucket=bucket, Prefix=f"{prefix}/local/results/")
    return len({
        key["Key"].rpartition("/")[0] for page in found for key in page.get("Contents", [])
    })  # fmt: skip


@pytest.mark.R5
@backings
def test_a_kill_of_everything_needs_no_hand(
    start: Start, backing: dict[str, str], said: Said
) -> None:
    queued = size(4, 50)
    figures = said(
        kill_of_everything(
            lambda: start(**backing, **HASTY, concurrency=2),
            lambda service: Record(service, backing),
            queued=queued,
        )
    )
    assert figures["ended"] == {"succeeded": queued + 2}


@pytest.mark.R18
@backings
def test_a_cancel_at_any_moment_leaves_no_process_and_no_file(
    start: Start, backing: dict[str, str], said: Said
) -> None:
    service = start(**backing, **HASTY)
    cancels = size(3, 50)
    figures = said(random_cancels(service, Record(service, backing), cancels=cancels))
    assert set(figures["ended"]) <= {"canceled", "succeeded"}
    assert figures["scratch_left"] == 0


@pytest.mark.R20
@backings
def test_nothing_grows_in_the_long_run(
    start: Start, backing: dict[str, str], said: Said
) -> None:
    """In CI so short that only what every job leaves shows; at release the slope an hour."""
    service = start(**backing)
    figures = said(soak(service, Record(service, backing), jobs=size(4, 1500)))
    assert figures["stored_more_bytes"] == 0
    assert figures["wal_mib"] <= 64
    assert max(figures["more_files"].values()) <= 5
