"""Nothing is lost and nothing is done twice, whatever dies: the bars, each as one JSON line.

`MODELPRESS_CHAOS=large` (`make chaos`) takes the sizes of a night.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.drivers import (
    broker_bounces,
    frozen_broker,
    random_cancels,
    random_kills,
    stopped_worker,
)
from tests.chaos.surroundings import HASTY, Record, Redis, cut_connections
from tests.system.service import Service

pytestmark = pytest.mark.system
LARGE = os.environ.get("MODELPRESS_CHAOS") == "large"

Start = Callable[..., Service]


def size(small: int, large: int) -> int:
    return large if LARGE else small


def said(figures: dict[str, object], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    with capsys.disabled():
        print("\n" + json.dumps(figures), flush=True)  # noqa: T201 - the line of the bar
    return figures


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    redis = Redis(tmp_path)
    yield redis
    redis.stop()


def nothing_lost(figures: dict[str, object]) -> bool:
    return (figures["lost"], figures["published_twice"]) == (0, 0)


def test_random_kills_lose_nothing_on_the_embedded_default(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    service = start(**HASTY)
    figures = random_kills(service, Record(service, {}), kills=size(12, 40), others={}, seed=1)
    assert nothing_lost(said(figures, capsys))
    assert figures["healed_seconds"] is not None


def test_random_kills_lose_nothing_at_scale(
    start: Start,
    scaled: dict[str, str],
    redis: Redis,
    capsys: pytest.CaptureFixture[str],
) -> None:
    backing = scaled | {"broker_url": redis.url}
    service = start(**backing, **HASTY)

    def bounce() -> bool:
        redis.kill()
        redis.start()
        return True

    others = {"broker": bounce, "database": lambda: cut_connections(backing["database_url"])}
    record = Record(service, backing)
    figures = random_kills(service, record, kills=size(6, 40), others=others, seed=2)
    assert nothing_lost(said(figures, capsys))
    assert figures["healed_seconds"] is not None


def test_a_worker_is_never_deaf_after_its_broker_was_killed(
    start: Start, redis: Redis, capsys: pytest.CaptureFixture[str]
) -> None:
    backing = {"broker_url": redis.url}
    service = start(**backing, **HASTY)
    record = Record(service, backing)
    figures = broker_bounces(service, record, redis, bounces=size(4, 30))
    assert nothing_lost(said(figures, capsys))
    assert (figures["stuck"], figures["healed_seconds"] is None) == (0, False)
    frozen = said(frozen_broker(service, record, redis), capsys)
    assert frozen["job_seconds"] is not None


def test_a_worker_that_was_stopped_and_goes_on_publishes_nothing(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    service = start(**HASTY)
    record = Record(service, {})
    figures = stopped_worker(service, record)
    assert nothing_lost(said(figures, capsys))
    assert figures["ended"] == {"succeeded": 1}
    assert len(list((service.data_dir / "objects/local/results").glob("*/*"))) == 1


def test_a_cancel_at_any_moment_leaves_no_process_and_no_file(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    service = start(**HASTY)
    figures = random_cancels(service, Record(service, {}), cancels=size(3, 50))
    assert nothing_lost(said(figures, capsys))
    assert figures["ended"] == {"canceled": size(3, 50)}
    assert figures["scratch_left"] == 0
