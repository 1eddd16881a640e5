"""The JSON routes, as a client sees them."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from worker.jobs import Failure, Job, ResultFile
from worker.services import Services

ROOT = Path(__file__).parents[2]
SUMMARY = {
    "bytes_before": 400,
    "bytes_after": 100,
    "latency_ms_before": 2.0,
    "latency_ms_after": 1.0,
    "speedup": 2.0,
    "drop": 0.0,
    "sqnr_db": None,
    "verdict": "better",
    "sentence": "Twice as fast.",
}


def submit(client: httpx.Client, model: bytes, **fields: str) -> dict:
    answer = client.post("/v1/jobs", files={"model": ("digits.onnx", model)}, data=fields)
    assert answer.status_code == 202, answer.text
    return answer.json()


def claim(services: Services, job_id: str) -> Job:
    job = services.leases.claim(job_id, holder="test")
    assert job is not None
    return job


def store(services: Services, content: bytes) -> ResultFile:
    with services.objects.receive("local") as incoming:
        incoming.write(content)
        kept = incoming.commit()
    return ResultFile(key=kept.key, bytes=kept.bytes, sha256=kept.sha256)


def succeed(services: Services, job_id: str, files: dict[str, bytes]) -> None:
    results = {name: store(services, content) for name, content in files.items()}
    services.leases.publish(
        claim(services, job_id), results=results, summary=SUMMARY, warnings=[], sandbox={}
    )


def test_a_submitted_job_is_recorded_and_answers_where_to_look(client, services, model):
    answer = client.post(
        "/v1/jobs",
        files={"model": ("../../my net.onnx", model)},
        data={"recipe": "prune-l1"},
    )
    view = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == view["links"]["self"] == f"/v1/jobs/{view['id']}"
    assert int(answer.headers["retry-after"]) > 0
    assert (view["status"], view["stage"], view["progress"]) == ("queued", "queued", 0)
    assert view["model"]["name"] == "my net.onnx"
    assert view["model"]["bytes"] == len(model)
    assert view["recipe"]["passes"][0]["method"] == "magnitude_pruning"
    job = services.jobs.get("local", view["id"])
    assert b"".join(services.objects.read(job.model.key)) == model
    assert client.get(view["links"]["self"]).json() == view


def test_a_recipe_may_come_as_a_file_and_data_along_with_it(client, services, model, samples):
    recipe = json.dumps({"passes": [{"method": "magnitude_pruning", "amount": 0.5}]})
    files = {
        "recipe": ("recipe.json", recipe.encode()),
        "model": ("digits.onnx", model),
        "calibration": ("samples.npz", samples),
    }
    view = client.post("/v1/jobs", files=files, data={"inputs": '{"x": {"shape": [1]}}'}).json()
    assert view["recipe"]["passes"][0]["amount"] == 0.5
    job = services.jobs.get("local", view["id"])
    assert job.calibration is not None
    assert (job.calibration.name, job.calibration.format) == ("samples.npz", "npz")
    assert job.inputs == {"x": {"shape": [1]}}


def test_jobs_are_listed_newest_first_page_by_page(client, model):
    made = [submit(client, model, name=f"job {index}")["id"] for index in range(5)]
    seen, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = client.get("/v1/jobs", params=query).json()
        seen += [job["id"] for job in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == made[::-1]
    assert client.get("/v1/jobs?status=succeeded").json()["items"] == []


def test_one_idempotency_key_makes_one_job(client, model):
    def send(name: str) -> httpx.Response:
        return client.post(
            "/v1/jobs",
            files={"model": ("digits.onnx", model)},
            data={"name": name},
            headers={"Idempotency-Key": "once"},
        )

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, ["same"] * 12))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/v1/jobs").json()["items"]) == 1
    other = send("another request")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


def test_a_queued_job_is_canceled_retried_and_deleted(client, services, model):
    job_id = submit(client, model)["id"]
    key = services.jobs.get("local", job_id).model.key
    assert client.post(f"/v1/jobs/{job_id}/retry").json()["code"] == "not_retryable"
    canceled = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (canceled.status_code, canceled.json()["status"]) == (200, "canceled")
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    retried = client.post(f"/v1/jobs/{job_id}/retry")
    assert (retried.status_code, retried.json()["status"]) == (202, "queued")
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert client.get(f"/v1/jobs/{job_id}").json()["code"] == "not_found"
    assert (
        services.objects.local_path(key) is None
        or not services.objects.local_path(key).exists()
    )


def test_a_running_job_is_canceled_or_deleted_when_it_stops(client, services, model):
    job_id = submit(client, model)["id"]
    claim(services, job_id)
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 202
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404


def test_a_failed_job_tells_its_problem(client, services, model):
    job_id = submit(client, model)["id"]
    failure = Failure(
        code="missing_inputs", detail="no shapes", hint="send them", stage="convert"
    )
    services.leases.fail(claim(services, job_id), failure, sandbox={})
    view = client.get(f"/v1/jobs/{job_id}").json()
    assert view["status"] == "failed"
    assert view["error"]["code"] == "missing_inputs"
    assert view["error"]["hint"] == "send them"
    assert view["error"]["stage"] == "convert"
    assert view["links"]["retry"] == f"/v1/jobs/{job_id}/retry"
    assert client.get(f"/v1/jobs/{job_id}/model").json()["code"] == "not_ready"


def test_a_result_is_downloaded_whole_or_in_ranges(client, services, model):
    job_id = submit(client, model, name='x"; evil.onnx')["id"]
    address = f"/v1/jobs/{job_id}/model"
    early = client.get(address)
    assert (early.status_code, early.json()["code"]) == (409, "not_ready")
    content = bytes(range(256)) * 20
    succeed(services, job_id, {"model.onnx": content, "report.json": b"{}"})

    whole = client.get(address)
    assert whole.content == content
    assert whole.headers["content-disposition"] == (
        f'attachment; filename="compressed-{job_id[-8:]}.onnx"'
    )
    tag = whole.headers["etag"]
    assert client.get(address, headers={"If-None-Match": tag}).status_code == 304
    assert client.head(address).headers["content-length"] == str(len(content))

    def part(asked: str, **headers: str) -> httpx.Response:
        return client.get(address, headers={"Range": asked} | headers)

    assert part("bytes=10-19").content == content[10:20]
    assert part("bytes=10-19").headers["content-range"] == f"bytes 10-19/{len(content)}"
    assert part("bytes=5000-").content == content[5000:]
    assert part("bytes=-7").content == content[-7:]
    assert part("bytes=10-19", **{"If-Range": tag}).status_code == 206
    assert part("bytes=10-19", **{"If-Range": '"old"'}).content == content
    assert part("bytes=9-1").content == content
    beyond = part(f"bytes={len(content)}-")
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(content)}"


def test_a_succeeded_job_links_to_what_it_has(client, services, model):
    job_id = submit(client, model)["id"]
    succeed(services, job_id, {"model.onnx": b"m", "report.html": b"<p>", "front-1.onnx": b"f"})
    view = client.get(f"/v1/jobs/{job_id}").json()
    assert (view["status"], view["progress"], view["result_format"]) == ("succeeded", 1, "onnx")
    assert view["summary"]["sentence"] == "Twice as fast."
    assert view["links"]["model"] == f"/v1/jobs/{job_id}/model"
    assert view["links"]["bundle"] is None
    assert client.get(f"/v1/jobs/{job_id}/files/front-1.onnx").content == b"f"
    for name in ("nope.txt", "..%2F..%2Fmodelpress.db"):
        assert client.get(f"/v1/jobs/{job_id}/files/{name}").json()["code"] == "not_found"


def test_the_report_page_may_never_run_a_script(client, services, model):
    job_id = submit(client, model)["id"]
    succeed(services, job_id, {"report.html": b"<script>alert(1)</script>"})
    answer = client.get(f"/v1/jobs/{job_id}/report.html")
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "sandbox" in policy
    assert "default-src 'none'" in policy
    assert "script" not in policy


def test_events_follow_the_job_to_its_end(client, services, model):
    job_id = submit(client, model)["id"]
    seen, last = [], None
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("id: "):
                last = line.removeprefix("id: ")
            if not line.startswith("data: "):
                continue
            seen.append(json.loads(line.removeprefix("data: "))["status"])
            if len(seen) == 1:
                succeed(services, job_id, {"model.onnx": b"m"})
    assert seen == ["queued", "succeeded"]
    again = client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last})
    assert again.status_code == 204
    missed = client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "1"})
    assert missed.text.startswith("event: job")


@pytest.mark.parametrize("form", [False, True])
def test_a_model_is_uploaded_once_and_used_by_jobs(client, model, form):
    if form:
        answer = client.post("/v1/models", files={"file": ("net.onnx", model)})
    else:
        answer = client.post("/v1/models?name=net.onnx", content=model)
    view = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == view["links"]["self"]
    assert (view["name"], view["format"], view["bytes"]) == ("net.onnx", "onnx", len(model))
    assert view["inspection"] is None
    assert client.get("/v1/models").json()["items"] == [view]

    job = client.post("/v1/jobs", data={"model_id": view["id"]}).json()
    assert (job["name"], job["model"]["sha256"]) == ("net.onnx", view["sha256"])
    used = client.delete(f"/v1/models/{view['id']}")
    assert (used.status_code, used.json()["code"]) == (409, "in_use")
    client.post(f"/v1/jobs/{job['id']}/cancel")
    assert client.delete(f"/v1/models/{view['id']}").status_code == 204
    assert client.get(f"/v1/models/{view['id']}").status_code == 404


def test_data_is_uploaded_once_and_used_by_jobs(client, services, model, samples):
    view = client.post("/v1/datasets?name=d.npz", content=samples).json()
    assert (view["format"], view["name"]) == ("npz", "d.npz")
    assert client.get(f"/v1/models/{view['id']}").status_code == 404
    job = submit(client, model, evaluation_id=view["id"])
    evaluation = services.jobs.get("local", job["id"]).evaluation
    assert evaluation is not None
    assert evaluation.sha256 == view["sha256"]


def test_a_partner_comes_along_or_is_named(client, services, model):
    files = {"model": ("e.onnx", model), "partner": ("d.onnx", model)}
    job = client.post("/v1/jobs", files=files).json()
    partner = services.jobs.get("local", job["id"]).partner
    assert (partner.name, partner.bytes) == ("d.onnx", len(model))
    view = client.post("/v1/models?name=d.onnx", content=model).json()
    job = submit(client, model, partner_id=view["id"])
    assert services.jobs.get("local", job["id"]).partner.id == view["id"]
    assert client.delete(f"/v1/models/{view['id']}").json()["code"] == "in_use"


def test_readiness_names_what_is_missing(client, services):
    assert client.get("/healthz").json() == {"status": "up"}
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    checks = answer.json()["checks"]
    assert (checks["database"], checks["storage"], checks["broker"]) == ("ok", "ok", "ok")
    assert "worker" in answer.json()["detail"]


def test_the_dashboard_asks_for_metrics_that_there_are(client):
    client.get("/healthz")
    given = client.get("/metrics").text
    dashboard = json.loads((ROOT / "deploy/grafana/modelpress.json").read_text())
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"modelpress_\w+", target["expr"])
    }
    assert len(asked) > 6
    assert [
        name for name in asked if f"# TYPE {name.removesuffix('_bucket')} " not in given
    ] == []


def test_metrics_count_jobs_and_requests(client, model):
    submit(client, model)
    client.get("/v1/jobs/none")
    text = client.get("/metrics").text
    assert 'modelpress_queue_depth{size_class="small"} 1.0' in text
    assert 'modelpress_jobs{status="queued"} 1.0' in text
    counted = (
        'modelpress_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"}'
    )
    assert counted in text
    received = float(re.search(r"(?m)^modelpress_upload_bytes_total (\S+)", text)[1])
    assert len(model) < received < len(model) + 1000
    assert float(re.search(r"(?m)^modelpress_upload_seconds_total (\S+)", text)[1]) > 0


def test_recipes_and_their_schema_are_told(client):
    assert client.get("/v1/recipes").json()["auto"]["passes"] == "auto"
    assert "goal" in client.get("/v1/recipe-schema").json()["properties"]
    assert "/v1/jobs" in client.get("/openapi.json").json()["paths"]
    for page in ("/docs", "/docs/errors"):
        assert "http://" not in client.get(page).text.replace(str(client.base_url), "")


def test_a_job_is_accepted_at_once_without_a_broker(serving, settings, model):
    alone = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    with serving(alone) as (client, _):
        started = time.monotonic()
        assert submit(client, model)["status"] == "queued"
        assert time.monotonic() - started < 2
        assert client.get("/readyz").json()["checks"]["broker"] != "ok"


def test_every_operation_documents_its_problems_and_its_key(client):
    document = client.get("/openapi.json").json()
    assert "Problem" in document["components"]["schemas"]
    assert {"key": []} in document["security"]
    for methods in document["paths"].values():
        for operation in methods.values():
            for status in ("4XX", "5XX"):
                assert "application/problem+json" in operation["responses"][status]["content"]
