"""Rates, quotas and places for uploads, as the owner of a key meets them."""

import socket
import time

import httpx
import pytest

from app.errors import Refusal
from app.rates import Rate
from tests.app.test_access import bearer
from tests.app.test_api import submit, succeed
from tests.app.test_uploads import stored
from worker.jobs import Expired


def test_a_bucket_fills_again_as_time_passes():
    rate = Rate(3, seconds=0.3)
    for _ in range(3):
        rate.take("ada")
    with pytest.raises(Refusal) as refused:
        rate.take("ada")
    assert int(refused.value.headers["Retry-After"]) >= 1
    rate.take("bob")
    time.sleep(0.15)
    rate.take("ada")


@pytest.mark.parametrize(
    ("limit", "value", "status", "code"),
    [
        ("max_owner_requests_per_second", 1, 429, "too_many_requests"),
        ("max_owner_uploads_per_minute", 1, 429, "too_many_requests"),
        ("max_owner_queued_jobs", 1, 429, "quota_exceeded"),
        ("max_owner_jobs_per_day", 1, 429, "quota_exceeded"),
        ("max_queued_jobs", 1, 503, "queue_full"),
        ("max_owner_bytes", 3000, 507, "storage_quota_exceeded"),
    ],
)
def test_what_is_over_a_limit_is_refused_and_leaves_nothing(
    serving, settings, model, limit, value, status, code
):
    with serving(settings.model_copy(update={limit: value})) as (client, services):
        send = {"files": {"model": ("m.onnx", model)}}
        if limit != "max_queued_jobs":  # that one also holds where there are no keys
            send["headers"] = bearer(services.keys.create("ada", "x")[1])
        answers = [client.post("/v1/jobs", **send) for _ in range(3)]
        refused = [answer for answer in answers if answer.status_code != 202]
        assert refused
        assert {(one.status_code, one.json()["code"]) for one in refused} == {(status, code)}
        if status != 507:
            assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
        accepted = len(answers) - len(refused)
        assert len(stored(settings)) == min(1, accepted)


def test_a_stated_length_beyond_the_room_is_refused_before_the_body(serving, settings):
    with serving(settings.model_copy(update={"max_owner_bytes": 1000})) as (client, services):
        _, key = services.keys.create("ada", "x")
        with socket.create_connection(("127.0.0.1", client.base_url.port)) as connection:
            head = f"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}"
            connection.sendall(f"{head}\r\nContent-Length: 2000\r\n\r\n".encode())
            assert b" 507 " in connection.recv(100)


def test_an_owner_has_so_many_uploads_at_a_time(serving, settings, model):
    with serving(settings.model_copy(update={"max_owner_uploads": 1})) as (client, services):
        _, key = services.keys.create("ada", "x")
        head = f"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}"
        with socket.create_connection(("127.0.0.1", client.base_url.port)) as connection:
            connection.sendall(f"{head}\r\nContent-Length: 900000\r\n\r\nx".encode())
            deadline = time.monotonic() + 10
            while not stored(settings) and time.monotonic() < deadline:
                time.sleep(0.02)
            wait_for(client, key, model, 429)
        wait_for(client, key, model, 201)


def wait_for(client: httpx.Client, key: str, model: bytes, status: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        answer = client.post("/v1/models", content=model, headers=bearer(key))
        if answer.status_code == status:
            return
        time.sleep(0.05)
    pytest.fail(f"it never answered {status}")


def test_an_upload_that_stalls_is_given_up(serving, settings):
    slow = settings.model_copy(update={"upload_stall_seconds": 0.3})
    with serving(slow) as (client, _):
        with socket.create_connection(("127.0.0.1", client.base_url.port)) as connection:
            connection.sendall(b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\n")
            connection.sendall(b"Content-Length: 900000\r\n\r\nx")
            answer = connection.recv(10_000)
        assert b" 408 " in answer
        assert stored(settings) == []


def test_the_files_of_a_result_that_expired_are_gone(client, services, model):
    job_id = submit(client, model)["id"]
    succeed(services, job_id, {"model.onnx": b"m"})
    expired = Expired(what="result", id=job_id, owner_id="local", bytes=1)
    services.discard(services.retention.drop(expired))
    answer = client.get(f"/v1/jobs/{job_id}/model")
    assert (answer.status_code, answer.json()["code"]) == (410, "files_gone")
    assert client.get(f"/v1/jobs/{job_id}").json()["links"]["model"] is None
