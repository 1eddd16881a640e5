"""The bars of the web process, each as one JSON line.

`MODELPRESS_CHAOS=large` (`make bars`) takes the full sizes.
"""

import json
import os
from collections.abc import Iterator

import pytest

from tests.bars import resuming, web
from tests.system.service import Service

pytestmark = pytest.mark.system
LARGE = os.environ.get("MODELPRESS_CHAOS") == "large"
LIMIT = 1_000_000  # of a model here


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(
        tmp_path_factory.mktemp("bars") / "data",
        max_model_bytes=LIMIT,
        max_queued_jobs=0,
        max_restarts=1000,
    )
    yield service
    service.kill_everything()


def size(small: int, large: int) -> int:
    return large if LARGE else small


def said(figures: web.Figures, capsys: pytest.CaptureFixture[str]) -> web.Figures:
    with capsys.disabled():
        print("\n" + json.dumps(figures), flush=True)  # noqa: T201 - the line of the bar
    return figures


def test_memory_does_not_grow_with_uploads(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, small = size(40_000_000, 2_147_000_000), size(8_000_000, 537_000_000)
    figures = said(web.memory(service, size=whole, at_once=8, small=small), capsys)
    for way in ("raw", "form", "tus"):
        assert figures[f"{way}_status"] == [201]
        assert float(str(figures[f"{way}_grew_mb"])) <= 32
    assert float(str(figures["at_once_grew_mb"])) <= 96


def test_a_body_beyond_the_limit_is_refused_and_little_of_it_is_taken(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = said(web.over_the_limit(service, limit=LIMIT, times=size(3, 30)), capsys)
    assert (figures["not_refused"], figures["expect_taken"], figures["left"]) == (0, 0, [])
    assert int(str(figures["stated_taken"])) <= 8_000_000
    assert int(str(figures["chunked_taken"])) <= LIMIT + 8_000_000


def test_uploads_that_break_off_leave_nothing(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = said(web.aborts(service, times=size(30, 200)), capsys)
    before, after = figures["files_open"]  # type: ignore[misc]
    assert (figures["left"], after <= before + 2) == ([], True)


def test_a_download_that_broke_off_goes_on_where_it_was(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = said(web.downloads(service, times=size(10, 50)), capsys)
    assert figures["equal"] == figures["times"]
    assert figures["statuses"] == [200, 416, 304]


def test_one_key_makes_one_job_however_often_it_is_sent_at_once(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = said(web.one_key_many_posts(service, rounds=size(2, 10)), capsys)
    assert set(figures["jobs"]) == {1}  # type: ignore[call-overload]
    assert set(figures["other"]) == {422}  # type: ignore[call-overload]


def test_a_resumable_upload_goes_on_after_the_web_process_was_killed(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    kills = size(2, 30)
    figures = said(resuming.resumed_uploads(service, kills=kills, size=6_000_000), capsys)
    assert (figures["whole"], figures["less_than_acknowledged"]) == (kills, 0)
