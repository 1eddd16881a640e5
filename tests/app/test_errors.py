"""Every error is a problem body with a code from the table."""

import ast
import re
from pathlib import Path

import pytest

import app
from app.errors import CODES, LIBRARY, status_of
from worker.compression import CompressionError

SOURCES = sorted(Path(app.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("GET", "/v1/jobs/%00", 404, "not_found"),
        ("GET", "/v1/jobs/01a20bcf-bf6e-77ea-85ec-5e8eb7b5af19", 404, "not_found"),
        ("GET", "/v1/jobs/nope", 404, "not_found"),
        ("GET", "/v1/jobs/nope/events", 404, "not_found"),
        ("GET", "/v1/jobs/nope/model", 404, "not_found"),
        ("POST", "/v1/jobs/nope/cancel", 404, "not_found"),
        ("DELETE", "/v1/models/nope", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid_parameter"),
        ("GET", "/v1/jobs?limit=x", 422, "invalid_parameter"),
        ("GET", "/v1/jobs?status=lost", 422, "invalid_parameter"),
        ("GET", "/v1/jobs?cursor=x", 422, "invalid_cursor"),
        ("GET", "/static/nope", 404, "not_found"),
    ],
)
def test_every_error_is_a_problem_with_a_stable_code(shared, method, path, status, code):
    client, _ = shared
    answer = client.request(method, path)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["code"]) == (status, code)
    assert problem["status"] == status
    assert {"type", "title", "detail", "request_id"} <= set(problem)
    assert problem["request_id"] == answer.headers["x-request-id"]


def test_a_failure_of_ours_tells_nothing_of_our_insides(served):
    client, services = served
    with services.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs RENAME TO lost")
    for _ in range(2):
        answer = client.get("/v1/jobs/01a20bcf-bf6e-77ea-85ec-5e8eb7b5af19")
        assert answer.status_code in (500, 503)
        assert answer.headers["content-type"] == "application/problem+json"
        assert not re.search(r"Traceback|sqlite|lost|/", answer.json()["detail"])
    assert client.get("/healthz").status_code == 200


def test_every_code_that_the_source_gives_is_in_the_table():
    given = {
        node.args[0].value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "Refusal"
        and isinstance(node.args[0], ast.Constant)
    }
    assert given
    assert given <= set(CODES)


def test_every_error_of_the_library_has_a_status():
    assert set(LIBRARY.values()) == {422}
    for kind in (CompressionError, *CompressionError.__subclasses__()):
        assert status_of(kind("x")) == 422
