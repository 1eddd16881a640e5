"""Resumable uploads, by hand and by a well-known client."""

import hashlib
import socket
import time
from base64 import b64encode
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from tusclient.client import TusClient

from app import tus
from tests.app.test_access import bearer
from tests.app.test_uploads import stored
from worker.services import Services

VERSION = {"Tus-Resumable": "1.0.0"}


def encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def announce(client: httpx.Client, size: int, kind: str = "model", **headers: str):
    said = {
        "Upload-Length": str(size),
        "Upload-Metadata": f"kind {encoded(kind)},filename {encoded('net.onnx')}",
    }
    return client.post("/v1/uploads", headers=VERSION | said | headers)


def send(client: httpx.Client, address: str, data: bytes, at: int, **headers: str):
    said = {"Upload-Offset": str(at), "Content-Type": "application/offset+octet-stream"}
    return client.patch(address, content=data, headers=VERSION | said | headers)


def offset(client: httpx.Client, address: str) -> int:
    answer = client.head(address, headers=VERSION)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


def test_its_abilities_are_told(client):
    answer = client.options("/v1/uploads")
    assert answer.status_code == 204
    assert answer.headers["tus-version"] == "1.0.0"
    assert "checksum" in answer.headers["tus-extension"]
    assert answer.headers["tus-max-size"] == "4000000"


def test_pieces_become_a_model_and_nothing_is_left(client, services, settings, model):
    begun = announce(client, len(model))
    assert begun.status_code == 201
    assert begun.headers["upload-expires"].endswith("GMT")
    address = begun.headers["location"]
    first = send(client, address, model[:700], 0)
    assert (first.status_code, first.headers["upload-offset"]) == (204, "700")
    assert "location" not in first.headers
    assert offset(client, address) == 700
    last = send(client, address, model[700:], 700)
    assert last.headers["upload-offset"] == str(len(model))
    made = client.get(last.headers["location"]).json()
    assert (made["name"], made["sha256"]) == ("net.onnx", hashlib.sha256(model).hexdigest())
    assert client.head(address, headers=VERSION).headers["location"] == last.headers["location"]
    assert offset(client, address) == len(model)
    again = send(client, address, b"", len(model))
    assert again.headers["location"] == last.headers["location"]
    assert len(stored(settings)) == 1
    job = client.post("/v1/jobs", data={"model_id": made["id"]})
    assert job.status_code == 202


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Tus-Resumable": "0.2.2"}, "unsupported_version"),
        ({"Upload-Length": "x"}, "bad_request"),
        ({"Upload-Length": "-1"}, "bad_request"),
        ({"Upload-Length": "9" * 30}, "bad_request"),
        ({"Upload-Length": "0"}, "empty_file"),
        ({"Upload-Length": "4000001"}, "payload_too_large"),
        ({"Upload-Metadata": ""}, "bad_request"),
        ({"Upload-Metadata": "kind ???"}, "bad_request"),
        ({"Upload-Metadata": f"kind {encoded('virus')}"}, "bad_request"),
        ({"Upload-Metadata": "a" * 5000}, "field_too_large"),
    ],
)
def test_what_cannot_be_announced(client, settings, headers, code):
    answer = announce(client, 10, **headers)
    assert answer.json()["code"] == code
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert stored(settings) == []


def test_a_piece_must_fit_where_the_upload_stands(client, model):
    address = announce(client, len(model)).headers["location"]
    assert send(client, address, model[:10], 5).json()["code"] == "offset_conflict"
    assert send(client, address, model + b"x", 0).json()["code"] == "payload_too_large"
    kind = {"Content-Type": "text/plain"}
    assert send(client, address, model, 0, **kind).json()["code"] == "unsupported_media_type"
    assert offset(client, address) == 0


def test_a_wrong_checksum_leaves_the_upload_where_it_was(client, model):
    address = announce(client, len(model)).headers["location"]
    send(client, address, model[:100], 0)
    for algorithm in ("sha1", "sha256"):
        right = b64encode(hashlib.new(algorithm, model[100:200]).digest()).decode()
        stated = {"Upload-Checksum": f"{algorithm} {right}"}
        wrong = send(client, address, model[101:201], 100, **stated)
        assert (wrong.status_code, wrong.json()["code"]) == (460, "checksum_mismatch")
        assert offset(client, address) == 100
    assert send(client, address, model[100:200], 100, **stated).status_code == 204
    unknown = {"Upload-Checksum": "md5 AAAA"}
    assert send(client, address, b"x", 200, **unknown).json()["code"] == "bad_request"


def test_what_arrived_before_a_break_is_kept_and_gone_on_with(client, model):
    address = announce(client, len(model)).headers["location"]
    head = f"PATCH {address} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\n"
    head += f"Upload-Offset: 0\r\nContent-Length: {len(model)}\r\n"
    head += "Content-Type: application/offset+octet-stream\r\n\r\n"
    with socket.create_connection(("127.0.0.1", client.base_url.port)) as connection:
        connection.sendall(head.encode() + model[:1000])
        time.sleep(0.2)
        busy = send(client, address, model, 0)
        assert (busy.status_code, busy.json()["code"]) == (423, "upload_locked")
    deadline = time.monotonic() + 10
    while offset(client, address) < 1000 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert offset(client, address) == 1000
    assert send(client, address, model[1000:], 1000).headers["location"]


def test_what_is_no_model_is_refused_at_the_end_and_forgotten(client, settings):
    address = announce(client, 5).headers["location"]
    answer = send(client, address, b"<!doc", 0)
    assert answer.status_code == 422
    assert client.head(address, headers=VERSION).status_code == 404
    assert stored(settings) == []


def test_an_upload_that_was_complete_when_the_service_died_is_recorded_later(
    client, services, model
):
    address = announce(client, len(model)).headers["location"]
    send(client, address, model[:-1], 0)
    with (services.objects.partials / address.rpartition("/")[2]).open("ab") as file:
        file.write(model[-1:])
    made = client.head(address, headers=VERSION).headers["location"]
    assert client.get(made).json()["bytes"] == len(model)


def test_uploads_are_given_up_or_expire(serving, settings, model):
    brief = settings.model_copy(update={"upload_hours": 0.5 / 3600})
    with serving(brief) as (client, services):
        addresses = [announce(client, len(model)).headers["location"] for _ in range(2)]
        for address in addresses:
            send(client, address, model[:9], 0)
        assert client.delete(addresses[0], headers=VERSION).status_code == 204
        assert client.head(addresses[0], headers=VERSION).status_code == 404
        time.sleep(0.6)
        late = send(client, addresses[1], model[9:], 9)
        assert (late.status_code, late.json()["code"]) == (410, "upload_expired")
        tus.sweep(services)
        assert client.head(addresses[1], headers=VERSION).status_code == 404
        assert stored(brief) == []


def test_room_is_reserved_when_an_upload_is_announced(serving, settings, model):
    with serving(settings.model_copy(update={"max_owner_bytes": 5000})) as (client, services):
        key = bearer(services.keys.create("ada", "x")[1])
        first = announce(client, 3000, **key)
        full = announce(client, 3000, **key)
        assert (full.status_code, full.json()["code"]) == (507, "storage_quota_exceeded")
        client.delete(first.headers["location"], headers=VERSION | key)
        assert announce(client, 3000, **key).status_code == 201


def test_a_common_client_uploads_in_pieces(client, services: Services, samples, tmp_path: Path):
    services.keys.create("ada", "x")
    _, key = services.keys.create("ada", "y")
    address = str(client.base_url.join("/v1/uploads"))
    theirs = TusClient(address, headers=bearer(key))
    uploader = theirs.uploader(
        file_stream=BytesIO(samples),
        chunk_size=50_000,
        metadata={"kind": "dataset", "filename": "samples.npz"},
        upload_checksum=True,
    )
    uploader.upload()
    (made,) = services.artifacts.page("ada", "dataset").items
    assert (made.name, made.sha256) == ("samples.npz", hashlib.sha256(samples).hexdigest())
