"""Requests that another site made a browser send, and names that are not ours."""

import json
import logging
from io import StringIO

import pytest

from app.security import allowed_hosts
from worker.logs import JsonLines
from worker.settings import Settings


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_may_not_change_anything(client, model, headers):
    answer = client.post("/v1/models", content=model, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "cross_origin")
    assert client.get("/v1/models").json()["items"] == []
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_our_own_page_and_tools_may(client, model):
    ours = {"Origin": str(client.base_url).rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/models", content=model, headers=ours).status_code == 201
    assert client.post("/v1/models", content=model).status_code == 201


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "[::1", ""])
def test_a_name_that_is_not_ours_is_refused(shared, host):
    client, _ = shared
    answer = client.get("/v1/jobs", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "untrusted_host")


def test_names_can_be_added():
    hosts = allowed_hosts(Settings(allowed_hosts="press.example, Other.example"))
    assert {"localhost", "press.example", "other.example"} <= hosts


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:8000", "10.1.2.3"]
)
def test_our_names_and_any_address_are_answered(shared, host):
    client, _ = shared
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


def test_what_is_logged_of_a_request_carries_its_id(client, model, caplog):
    handler = logging.StreamHandler(kept := StringIO())
    handler.setFormatter(JsonLines())
    logging.getLogger("app").addHandler(handler)
    with caplog.at_level(logging.INFO):
        sent = client.post("/v1/jobs", files={"model": ("a\r\nb.onnx", model)})
        client.get("/v1/jobs")
    logging.getLogger("app").removeHandler(handler)
    recorded, answered = [json.loads(line) for line in kept.getvalue().splitlines()]
    assert recorded["job_id"] == sent.json()["id"]
    assert recorded["request_id"] == answered["request_id"] == sent.headers["x-request-id"]
    assert answered["message"].startswith("POST /v1/jobs answered 202 in ")


def test_nobody_is_allowed_in_from_elsewhere(shared):
    client, _ = shared
    answer = client.get("/v1/jobs", headers={"Origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
