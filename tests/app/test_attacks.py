"""What an outsider does to a web server: hold its places, confuse its parser, climb out."""

import socket
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from app import events
from app.protocol import PatientProtocol
from tests.app.test_access import bearer
from tests.app.test_api import submit, succeed
from tests.fuzz.driver import answer

WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
PART = b"GET / HTTP/1.1\r\nHost: local"


@pytest.mark.parametrize(
    ("first", "sent"), [(b"", b""), (b"", b"G"), (b"", PART), (WHOLE, b"G"), (WHOLE, PART)]
)
def test_a_connection_that_sends_no_whole_head_is_closed(client, monkeypatch, sent, first):
    monkeypatch.setattr(PatientProtocol, "head_seconds", 0.4)
    port = client.base_url.port
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        if first:
            connection.sendall(first)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(sent)
        started = time.monotonic()
        while connection.recv(4096):
            pass
        assert time.monotonic() - started < 8


def test_a_body_that_drips_into_a_form_is_given_up(serving, settings):
    hasty = settings.model_copy(update={"upload_stall_seconds": 0.3})
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n"
    kind = b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    with serving(hasty) as (client, _):
        started = time.monotonic()
        assert answer(client.base_url.port, head + kind + b"key=") in ("400", "408")
        assert time.monotonic() - started < 0.9  # it was not we who ended it


def test_a_body_of_two_lengths_is_refused(client):
    """The tail would be a request of its own to whoever believes the other length."""
    smuggled = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sent = (
        b"POST /v1/models HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n%s"
    ) % (5 + len(smuggled), smuggled)
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=10) as taken:
        taken.sendall(sent)
        said = b""
        while more := taken.recv(4096):
            said += more
    assert said.startswith(b"HTTP/1.1 400")
    assert said.count(b"HTTP/1.1") == 1


def test_an_owner_holds_so_many_event_streams(client, services, model, monkeypatch):
    monkeypatch.setattr(events, "MAX_STREAMS", 2)
    ada = bearer(services.keys.create("ada", "x")[1])
    bob = bearer(services.keys.create("bob", "x")[1])
    sent = {"files": {"model": ("m.onnx", model)}}
    mine, theirs = (
        client.post("/v1/jobs", headers=key, **sent).json()["links"]["events"]
        for key in (ada, bob)
    )
    with (
        client.stream("GET", mine, headers=ada) as first,
        client.stream("GET", mine, headers=ada) as second,
    ):
        held = [first.iter_lines(), second.iter_lines()]  # letting go of one closes it
        assert [next(lines) for lines in held] == ["event: job"] * 2
        refused = client.get(mine, headers=ada)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
        with client.stream("GET", theirs, headers=bob) as other:
            assert other.status_code == 200
    deadline = time.monotonic() + 10
    while "ada" in events._streams and time.monotonic() < deadline:
        time.sleep(0.05)
    with client.stream("GET", mine, headers=ada) as again:
        assert again.status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "../../modelpress.db",
        "..%2f..%2fmodelpress.db",
        "%2e%2e%2f%2e%2e%2fmodelpress.db",
        "..%5c..%5cmodelpress.db",
        "....//modelpress.db",
        "/etc/passwd",
        "model.onnx%00.json",
        "report.json%0d%0aSet-Cookie:a=b",
        "local",
    ],
)
def test_no_name_of_a_result_leads_out_of_it(client, services, model, name):
    job_id = submit(client, model)["id"]
    succeed(services, job_id, {"model.onnx": b"m", "report.json": b"{}"})
    sent = f"GET /v1/jobs/{job_id}/files/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert answer(client.base_url.port, sent.encode()) == "404"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/uploads"),
        ("PATCH", "/v1/uploads/00000000-0000-7000-8000-000000000000"),
        ("POST", "/v1/models"),
        ("POST", "/v1/jobs"),
        ("POST", "/jobs"),
        ("POST", "/login"),
        ("DELETE", "/v1/jobs/00000000-0000-7000-8000-000000000000"),
    ],
)
def test_another_site_gets_nothing_through_a_browser(shared, method, path):
    client, _ = shared
    headers = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    refused = client.request(method, path, headers=headers, content=b"x")
    assert (refused.status_code, refused.json()["code"]) == (403, "cross_origin")
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": method}
    preflight = client.options(path, headers=asked)
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_a_session_is_not_the_one_that_was_planted(client, services):
    _, key = services.keys.create("ada", "x")
    client.cookies.set("modelpress_session", "planted")
    page = client.get("/login").text
    token = page.split('name="csrf_token" value="')[1].split('"')[0]
    sent = client.post("/login", data={"key": key, "csrf_token": token})
    given = sent.headers["set-cookie"].split("modelpress_session=")[1].split(";")[0]
    assert sent.status_code == 303
    assert given not in ("planted", "")
    assert services.keys.of_session("planted") is None


def test_guessing_keys_is_answered_alike_and_holds_up_nobody(client, services):
    _, key = services.keys.create("ada", "x")
    guesses = [
        key[:-1] + ("a" if key[-1] != "a" else "b"),
        key[:12],
        key + "x",
        "mp_" + "a" * 50,
    ]
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(
                lambda number: client.get("/v1/jobs", headers=bearer(guesses[number % 4])),
                range(200),
            )
        )
    said = {(a.status_code, a.json()["detail"]) for a in answers}
    assert len(said) == 1
    assert {status for status, _ in said} == {401}
    assert client.get("/v1/jobs", headers=bearer(key)).status_code == 200


@pytest.mark.parametrize("taken", [0, 3_000_000])
def test_a_client_that_does_not_take_its_download_is_given_up(
    client, services, model, monkeypatch, taken
):
    monkeypatch.setattr(PatientProtocol, "taking_seconds", 0.3)
    job_id = submit(client, model)["id"]
    succeed(services, job_id, {"model.onnx": bytes(40_000_000), "report.json": b"{}"})
    sent = f"GET /v1/jobs/{job_id}/model HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=10) as slow:
        slow.sendall(sent.encode())
        while taken > 0:
            taken -= len(slow.recv(65536))
        until(lambda: results_open() != [])
        until(lambda: results_open() == [])
        with pytest.raises(ConnectionResetError):
            deque(iter(lambda: slow.recv(65536), b""), maxlen=0)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def results_open() -> list[Path]:
    """Files of results that the server, which is this process, holds open."""
    opened = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            opened.append(descriptor.readlink())
    return [path for path in opened if "objects" in path.parts]


def test_a_client_that_takes_its_download_slowly_gets_it_whole(
    client, services, model, monkeypatch
):
    monkeypatch.setattr(PatientProtocol, "taking_seconds", 0.4)
    job_id = submit(client, model)["id"]
    succeed(services, job_id, {"model.onnx": bytes(5_000_000), "report.json": b"{}"})
    sent = f"GET /v1/jobs/{job_id}/model HTTP/1.1\r\nHost: localhost\r\nConnection: close"
    taken = 0
    with socket.socket() as slow:
        slow.settimeout(10)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64_000)
        slow.connect(("127.0.0.1", client.base_url.port))
        slow.sendall(sent.encode() + b"\r\n\r\n")
        while piece := slow.recv(50_000):
            taken += len(piece)
            time.sleep(0.01)
    assert taken > 5_000_000
