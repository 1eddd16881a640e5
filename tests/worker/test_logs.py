"""One event is one line, whatever is in it, and carries the ids of what it is about."""

import json
import logging

import pytest

from worker.logs import JsonLines, PlainLines, about

HOSTILE = "net.onnx\r\n2026-01-01 00:00:00 ERROR forged\x1b[2J\x00\u2028\u202e\x9b31m"


def record(message: str, *, failed: bool = False) -> logging.LogRecord:
    cause = None
    if failed:
        try:
            int(HOSTILE)
        except ValueError as error:
            cause = (type(error), error, error.__traceback__)
    return logging.LogRecord("app", logging.ERROR, "file", 1, "said %s", (message,), cause)


@pytest.mark.parametrize("formatter", [JsonLines(), PlainLines()])
@pytest.mark.parametrize("failed", [False, True])
def test_no_message_forges_a_line_or_colours_it(formatter, failed):
    with about(request_id="r1", job_id=HOSTILE):
        line = formatter.format(record(HOSTILE, failed=failed))
    assert line.isprintable()
    assert "r1" in line
    assert "forged" in line


def test_a_json_line_has_the_ids_as_members_and_loses_them_afterwards():
    with about(request_id="r1"):
        with about(job_id="j1"):
            inner = json.loads(JsonLines().format(record("x")))
        outer = json.loads(JsonLines().format(record("x")))
    assert (inner["request_id"], inner["job_id"]) == ("r1", "j1")
    assert (outer["request_id"], "job_id" in outer) == ("r1", False)
