"""The pages, without script: what a plain browser sends and sees."""

import re

import httpx
import pytest

from app.wording import sentences
from tests.app.test_api import submit, succeed
from worker.jobs import Failure

HOSTILE = '<script>alert("x")</script>.onnx'


def token(client: httpx.Client) -> str:
    """The form's token; the client keeps the cookie that belongs to it."""
    found = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/").text)
    assert found
    return found[1]


def send(client: httpx.Client, model: bytes, **fields: str) -> httpx.Response:
    return client.post(
        "/jobs",
        files={"model": (HOSTILE, model)},
        data={"csrf_token": token(client)} | fields,
    )


def test_the_plain_form_submits_a_job_and_goes_on_to_its_page(client, model):
    answer = send(client, model, preset="prune-l1", **{"goal.max_drop": "0.05"})
    assert answer.status_code == 303
    page = client.get(answer.headers["location"])
    assert page.status_code == 200
    assert "waiting for a worker" in page.text
    assert 'http-equiv="refresh"' in page.text
    (job,) = client.get("/v1/jobs").json()["items"]
    assert job["recipe"]["goal"]["max_drop"] == 0.05
    assert job["recipe"]["passes"][0]["method"] == "magnitude_pruning"


def test_a_refused_form_comes_back_filled_in_with_the_reason(client, model):
    answer = send(client, model, preset="int8", **{"goal.max_drop": "7", "name": "my job"})
    assert answer.status_code == 422
    assert "less than or equal to 1" in answer.text
    assert 'value="7"' in answer.text
    assert 'value="my job"' in answer.text
    assert re.search(r'value="int8"[^>]*checked', answer.text)


def test_a_refused_file_is_answered_with_its_remedy(client):
    answer = send(client, b"\x89HDF\r\n\x1a\n" + bytes(100))
    assert answer.status_code == 422
    assert "hdf5_file" in answer.text
    assert "What to do" in answer.text


def test_a_script_is_answered_in_json(client, model):
    asked = {"Accept": "application/json"}
    fields = {"csrf_token": token(client)}
    files = {"model": ("m.onnx", model)}
    sent = client.post("/jobs", files=files, data=fields, headers=asked)
    assert sent.status_code == 202
    assert client.get(sent.json()["location"]).status_code == 200
    refused = client.post("/jobs", data=fields, headers=asked)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "missing_model"


def test_hostile_names_are_shown_as_text(client, services, model):
    job_id = send(client, model, name=HOSTILE).headers["location"].rpartition("/")[2]
    job = services.leases.claim(job_id, holder="test")
    failure = Failure(code="invalid_model", detail=HOSTILE, hint=HOSTILE, stage="convert")
    services.leases.fail(job, failure, sandbox={})
    for path in ("/jobs", f"/jobs/{job_id}"):
        page = client.get(path).text
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page


def test_the_buttons_of_a_job_work(client, model):
    address = send(client, model).headers["location"]
    fields = {"csrf_token": token(client)}
    assert client.post(f"{address}/cancel", data=fields).headers["location"] == address
    assert "canceled" in client.get(address).text
    client.post(f"{address}/retry", data=fields)
    assert "queued" in client.get(address).text
    assert client.post(f"{address}/delete", data=fields).headers["location"] == "/jobs"
    gone = client.get(address)
    assert gone.status_code == 404
    assert gone.headers["content-type"].startswith("text/html")
    assert "No jobs yet" in client.get("/jobs").text


def test_a_form_without_its_token_is_refused(client, model):
    address = send(client, model).headers["location"]
    for fields in ({}, {"csrf_token": "guessed"}):
        answer = client.post(f"{address}/delete", data=fields)
        assert (answer.status_code, "csrf_failed" in answer.text) == (403, True)
        files = {"model": ("m.onnx", model)}
        assert client.post("/jobs", files=files, data=fields).status_code == 403
    assert client.get(address).status_code == 200
    assert len(client.get("/v1/jobs").json()["items"]) == 1


@pytest.mark.parametrize("path", ["/", "/jobs", "/docs", "/docs/errors"])
def test_pages_run_no_inline_script_and_load_nothing_from_elsewhere(shared, path):
    client, _ = shared
    answer = client.get(path)
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in answer.headers["content-security-policy"]
    for address in re.findall(r'(?:src|href|action)="([^"]+)"', answer.text):
        assert address.startswith(("/", "#")), address
    assert not re.search(r"<script(?![^>]*src=)", answer.text)
    assert not re.search(r"<[^>]+ (style|on\w+)=", answer.text)


def test_static_files_are_served(shared):
    client, _ = shared
    for name in ("style.css", "upload.js", "job.js", "icon.svg"):
        assert client.get(f"/static/{name}").status_code == 200
    assert client.get("/static/../main.py").status_code == 404


def test_a_verdict_is_a_headline_and_then_its_sentences(client, services, model):
    job_id = submit(client, model)["id"]
    succeed(services, job_id, {"model.onnx": b"m", "report.html": b"<p>"})
    page = client.get(f"/jobs/{job_id}").text
    assert "<h2>4.00× smaller and 2.00× as fast.</h2>" in page
    assert "<li>Twice as fast.</li>" in page
    assert "4.00× smaller and 2.00× as fast." in client.get("/jobs").text


def test_a_verdict_is_taken_apart_at_its_sentences_only():
    said = "Done as asked. 753 kB became 200 kB (0.27x). Worst /a.B/Conv, 4.8 %. Load it so."
    assert sentences(said) == [
        "753 kB became 200 kB (0.27x).",
        "Worst /a.B/Conv, 4.8 %.",
        "Load it so.",
    ]
