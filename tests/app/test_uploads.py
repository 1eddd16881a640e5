"""Wrong, oversized, endless or cut-off bodies: a stable code, and nothing left behind."""

import http.client
import json
import re
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from app.uploads import display_name
from tests.servers import free_port
from tests.swift import ACCESS_KEY, SECRET_KEY
from worker.settings import Settings

FORM = "multipart/form-data; boundary=b"


def part(name: str, content: bytes, filename: str | None = None) -> bytes:
    shown = "" if filename is None else f'; filename="{filename}"'
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


def stored(settings: Settings) -> list[Path]:
    """Every file below the data folder but the database and the broker's."""
    return [
        path
        for path in settings.data_dir.rglob("*")
        if path.is_file()
        and not path.name.startswith("modelpress.db")
        and "broker" not in path.relative_to(settings.data_dir).parts
    ]


MODEL = (Path(__file__).parents[2] / "examples/digits/digits.onnx").read_bytes()


def beside_model(name: str, content: bytes, filename: str | None = None) -> bytes:
    """A form with a good model, and one part that is not."""
    return body(part("model", MODEL, "a.onnx"), part(name, content, filename))


ID_AND_FILE = body(
    part("model", MODEL, "a"), part("calibration", b"x", "c"), part("calibration_id", b"1")
)
TWO_MODELS = body(part("model", MODEL, "a"), part("model", MODEL, "b"))
NO_NAME = b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"

REFUSED = {
    "nothing at all": (body(), "missing_model"),
    "only a recipe": (body(part("recipe", b"int8")), "missing_model"),
    "a model as text": (body(part("model", MODEL)), "not_a_file"),
    "two models": (TWO_MODELS, "duplicate_field"),
    "an unknown field": (body(part("modle", MODEL, "a")), "unknown_field"),
    "a file without a name": (body(part("model", MODEL, "")), "not_a_file"),
    "an unknown model": (body(part("model_id", b"nope")), "unknown_model"),
    "an unknown data set": (beside_model("calibration_id", b"nope"), "unknown_dataset"),
    "a file and an id": (ID_AND_FILE, "ambiguous_field"),
    "a recipe cut off": (beside_model("recipe", b"{"), "invalid_recipe"),
    "an unknown recipe": (beside_model("recipe", b"x"), "invalid_recipe"),
    "a deep recipe": (beside_model("recipe", b'{"a":' * 10_000), "invalid_recipe"),
    "a huge number": (
        beside_model("recipe", b'{"seed":' + b"9" * 5000 + b"}"),
        "invalid_recipe",
    ),
    "inputs cut off": (beside_model("inputs", b"{"), "invalid_inputs"),
    "deep inputs": (beside_model("inputs", b"[" * 60_000), "invalid_inputs"),
    "inputs as a list": (beside_model("inputs", b"[1]"), "invalid_inputs"),
    "inputs with NaN": (beside_model("inputs", b'{"x": {"value": NaN}}'), "invalid_inputs"),
    "half a character": (beside_model("inputs", b'{"\\ud800": {}}'), "invalid_inputs"),
    "a huge text": (beside_model("name", b"n" * 70_000), "field_too_large"),
    "text that is not UTF-8": (beside_model("name", b"\xff"), "bad_request"),
    "a field many times": (body(*[part("recipe", b"")] * 30), "duplicate_field"),
    "empty file fields, many": (body(*[part("model", b"", "")] * 30), "too_many_parts"),
    "a body cut off": (part("model", MODEL, "a")[:-30], "malformed_multipart"),
    "no part at all": (b"garbage", "malformed_multipart"),
    "an empty body": (b"", "malformed_multipart"),
    "a part without a name": (NO_NAME, "malformed_multipart"),
    "a huge part header": (b"--b\r\nX: " + b"y" * 100_000, "malformed_multipart"),
    "an empty model": (body(part("model", b"", "a.onnx")), "empty_file"),
    "a pickle": (body(part("model", b"\x80\x02}q\x00.", "a.pt")), None),
    "a web page": (body(part("model", b"<!doctype html><p>", "a.onnx")), "html_page"),
    "data of no kind": (beside_model("calibration", b"1,2,3", "c.csv"), "invalid_data"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_form_is_refused_by_name_and_leaves_nothing(shared, case):
    client, settings = shared
    content, code = REFUSED[case]
    before = stored(settings)
    answer = client.post("/v1/jobs", content=content, headers={"Content-Type": FORM})
    problem = answer.json()
    assert 400 <= answer.status_code < 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert (problem["status"], problem["code"]) == (answer.status_code, code or problem["code"])
    assert problem["detail"]
    assert "Traceback" not in answer.text
    assert stored(settings) == before


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=" + "b" * 5000, 400),
        ("application/json", 415),
        ("", 415),
    ],
)
def test_a_form_of_another_type_is_refused(shared, kind, status):
    client, _ = shared
    answer = client.post("/v1/jobs", content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json()["hint"]


def test_a_file_field_left_empty_in_a_browser_is_no_file(shared):
    client, _ = shared
    content = body(part("model", MODEL, "a.onnx"), part("calibration", b"", ""))
    answer = client.post("/v1/jobs", content=content, headers={"Content-Type": FORM})
    assert answer.status_code == 202


@pytest.mark.parametrize("header", ["Content-Digest", "Repr-Digest", "X-Checksum-Sha256"])
def test_a_raw_upload_that_states_its_digest_is_checked(shared, samples, header):
    client, settings = shared
    before = stored(settings)
    for content, status in ((b"other", 422), (samples, 201)):
        found = sha256(content)
        digest = f"sha-256=:{b64encode(found.digest()).decode()}:"
        stated = {header: found.hexdigest() if header.startswith("X") else digest}
        answer = client.post("/v1/datasets", content=samples, headers=stated)
        assert answer.status_code == status
        if status == 422:
            assert answer.json()["code"] == "digest_mismatch"
            assert stored(settings) == before


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(shared):
    client, settings = shared
    for path in ("/v1/models", "/v1/jobs"):
        connection = http.client.HTTPConnection("127.0.0.1", client.base_url.port, timeout=10)
        connection.putrequest("POST", path)
        connection.putheader("Content-Length", str(10 * 1024**4))
        connection.putheader("Content-Type", FORM if path == "/v1/jobs" else "x/y")
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["code"]) == (413, "payload_too_large")
        connection.close()
    assert stored(settings) == stored(settings)


def test_a_body_that_grows_too_large_is_cut_at_the_limit(shared):
    client, settings = shared
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield part("model", MODEL, "a.onnx").removesuffix(b"\r\n")
        while taken < 200_000_000:
            taken += 65_536
            yield bytes(65_536)

    before = stored(settings)
    answer = client.post("/v1/jobs", content=endless(), headers={"Content-Type": FORM})
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
    assert taken < 50_000_000
    assert stored(settings) == before


def test_an_upload_that_does_not_fit_on_the_disk_is_refused(serving, settings, model):
    full = settings.model_copy(update={"free_disk_reserve_bytes": 10**18})
    with serving(full) as (client, _):
        answer = client.post("/v1/jobs", files={"model": ("m.onnx", model)})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")


def test_an_aborted_upload_leaves_nothing(shared):
    client, settings = shared
    before = stored(settings)
    with socket.create_connection(("127.0.0.1", client.base_url.port)) as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n"
        connection.sendall(f"{head}Content-Length: 900000\r\n\r\n".encode())
        connection.sendall(part("model", MODEL[:500_000], "a.onnx"))
        deadline = time.monotonic() + 10
        while stored(settings) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert stored(settings) != before
    while stored(settings) != before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert stored(settings) == before


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("C:\\models\\net.onnx", "net.onnx"),
        ("../../etc/passwd", "passwd"),
        ("a\r\nSet-Cookie: x\x1b[2J", "aSet-Cookie: x[2J"),
        ("", "unnamed"),
        ("n" * 500, "n" * 200),
    ],
)
def test_a_file_name_is_only_ever_something_to_show(given, shown):
    assert display_name(given) == shown


def test_memory_does_not_grow_with_the_upload(serving, settings):
    size, piece = 160_000_000, bytes(1_000_000)
    roomy = settings.model_copy(update={"max_dataset_bytes": 2 * size})

    def big() -> Iterator[bytes]:
        yield part("file", b"\x93NUMPY", "big.npy").removesuffix(b"\r\n")
        for _ in range(size // len(piece)):
            yield piece
        yield b"\r\n--b--\r\n"

    with serving(roomy) as (client, _):
        client.get("/healthz")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before = resident("VmRSS")
        answer = client.post("/v1/datasets", content=big(), headers={"Content-Type": FORM})
        assert answer.json()["bytes"] == size + 6
        assert resident("VmHWM") - before < 32_000_000  # client and server together


def resident(kind: str) -> int:
    """Bytes of this process's memory, now (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"{kind}:\s+(\d+)", status)[1])


def test_a_store_that_is_away_is_told_and_nothing_is_kept(
    serving, settings, model, monkeypatch
):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    # As in other tests: boto3 remembers them for the whole process.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with serving(settings.model_copy(update={"storage_url": "s3://away"})) as (client, _):
        refused = client.post("/v1/models", content=model)
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert list((settings.data_dir / "incoming").iterdir()) == []
