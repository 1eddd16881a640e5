"""Keys, owners and sessions, as clients and attackers meet them."""

import re
import time
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import Request

from app.access import KNOWN_S, is_local
from app.login import _ours
from tests.app.test_api import submit, succeed
from worker.services import Services

TUS = {
    "X-HTTP-Method-Override": "DELETE",
    "Tus-Resumable": "1.0.0",
    "Upload-Offset": "0",
    "Content-Type": "application/offset+octet-stream",
}
ANY_ID = "01a20bcf-bf6e-77ea-85ec-5e8eb7b5af19"


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


@pytest.fixture
def ada(services: Services) -> str:
    """The text of a key; from now on the service asks for one."""
    return services.keys.create("ada", "Ada's laptop")[1]


@pytest.fixture
def bob(services: Services) -> str:
    return services.keys.create("bob", "Bob's")[1]


@pytest.fixture
def browser(client: httpx.Client, ada: str) -> Iterator[httpx.Client]:
    """A browser that signed in with Ada's key."""
    with httpx.Client(base_url=client.base_url, follow_redirects=False) as browser:
        answer = sign_in(browser, ada)
        assert answer.status_code == 303, answer.text
        yield browser


def token_in(page: str) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found
    return found[1]


def sign_in(browser: httpx.Client, key: str, **fields: str) -> httpx.Response:
    token = token_in(browser.get("/login").text)
    return browser.post("/login", data={"key": key, "csrf_token": token} | fields)


def test_from_the_first_key_on_every_failure_is_the_same_401(client, services):
    assert client.get("/v1/jobs").status_code == 200
    wrong = client.get("/v1/jobs", headers=bearer("mp_aaaaaaaa_" + "a" * 43))
    live, text = services.keys.create("ada", "x")
    _, old = services.keys.create("ada", "old", lifetime_seconds=-1)
    gone, revoked = services.keys.create("ada", "gone")
    services.keys.revoke(gone.id)
    time.sleep(KNOWN_S + 0.1)
    bad = [
        {}, bearer("nonsense"), bearer(old), bearer(revoked), bearer(text[:-1] + "_"),
        bearer(f"mp_{live.id}_" + "a" * 43), {"Authorization": f"Basic {text}"},
        {"Authorization": text}, {"Cookie": "modelpress_session=x"},
    ]  # fmt: skip
    bodies = []
    for headers in bad:
        answer = client.get("/v1/jobs", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        body = answer.json()
        bodies.append({name: body[name] for name in body if name != "request_id"})
    assert all(body == bodies[0] for body in bodies)
    assert wrong.status_code == 401
    assert client.get("/v1/jobs", headers=bearer(text)).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_a_revoked_key_is_refused_within_seconds(client, services, ada):
    assert client.get("/v1/jobs", headers=bearer(ada)).status_code == 200
    services.keys.revoke(ada[3:11])
    time.sleep(KNOWN_S + 0.1)
    assert client.get("/v1/jobs", headers=bearer(ada)).status_code == 401


def test_only_a_hash_of_a_key_is_kept_and_its_use_is_noted(client, services, ada, settings):
    client.get("/v1/jobs", headers=bearer(ada))
    deadline = time.monotonic() + 5
    while services.keys.all()[0].last_used_at is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert services.keys.all()[0].last_used_at is not None
    secret = ada.rpartition("_")[2].encode()
    kept = [path for path in settings.data_dir.rglob("*") if path.is_file()]
    assert not [path for path in kept if secret in path.read_bytes()]


@pytest.mark.parametrize(
    ("scopes", "read", "write", "operate"),
    [(["read"], 200, 403, 403), (["write"], 403, 201, 403), (["admin"], 403, 403, 200)],
)
def test_a_key_does_what_its_scopes_say(client, services, model, scopes, read, write, operate):
    _, text = services.keys.create("ada", "x", scopes=scopes)
    headers = bearer(text)
    assert client.get("/v1/jobs", headers=headers).status_code == read
    assert client.post("/v1/models", content=model, headers=headers).status_code == write
    assert client.get("/metrics", headers=headers).status_code == operate
    services.workers.report(
        "w", host="h", slots=1, sandbox={}, classes=("small",), silent_seconds=0
    )
    assert ("workers" in client.get("/readyz", headers=headers).json()) == (operate == 200)


def test_no_operation_shows_or_changes_what_another_owner_has(
    client, services, ada, bob, model, samples
):
    mine = {"headers": bearer(ada)}
    sent = {
        "model_id": client.post("/v1/models", content=model, **mine).json()["id"],
        "dataset_id": client.post("/v1/datasets", content=samples, **mine).json()["id"],
    }
    made = client.post("/v1/jobs", data={"model_id": sent["model_id"]}, **mine).json()["id"]
    before = client.get(f"/v1/jobs/{made}", **mine).json()
    length = {"Upload-Length": "99", "Upload-Metadata": "kind bW9kZWw="}
    begun = client.post("/v1/uploads", headers=mine["headers"] | TUS | length)
    announced = begun.headers["location"].rpartition("/")[2]
    theirs = {"headers": bearer(bob)}
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        if "{" not in path:
            continue
        foreign = sent["model_id"] if "models" in path else sent["dataset_id"]
        foreign = made if "jobs" in path else announced if "uploads" in path else foreign
        address = re.sub(r"\{\w+_id\}", foreign, path).replace("{name}", "report.json")
        for method in methods:
            answer = client.request(method, address, headers=theirs["headers"] | TUS)
            assert answer.status_code == 404, (method, path, answer.text)
            unknown = address.replace(foreign, ANY_ID)
            other = client.request(method, unknown, headers=theirs["headers"] | TUS)
            assert other.status_code == 404
            if method != "head":
                assert other.json()["code"] == answer.json()["code"] == "not_found"
    for path in ("/v1/jobs", "/v1/models", "/v1/datasets"):
        assert client.get(path, **theirs).json()["items"] == []
    for field, value in (
        ("model_id", sent["model_id"]),
        ("calibration_id", sent["dataset_id"]),
    ):
        files = {} if field == "model_id" else {"model": ("m.onnx", model)}
        answer = client.post("/v1/jobs", data={field: value}, files=files or None, **theirs)
        assert answer.json()["code"] in ("unknown_model", "unknown_dataset")
    assert client.get(f"/v1/jobs/{made}", **mine).json() == before


def test_what_was_made_without_keys_belongs_to_local(client, services, model):
    job_id = submit(client, model)["id"]
    succeed(services, job_id, {"model.onnx": b"m"})
    _, text = services.keys.create("local", "me")
    _, other = services.keys.create("ada", "her")
    time.sleep(KNOWN_S + 0.1)
    assert client.get(f"/v1/jobs/{job_id}/model", headers=bearer(text)).content == b"m"
    assert client.get(f"/v1/jobs/{job_id}/model", headers=bearer(other)).status_code == 404


def test_the_same_idempotency_key_of_two_owners_makes_two_jobs(client, ada, bob, model):
    ids = {
        client.post(
            "/v1/jobs",
            files={"model": ("m.onnx", model)},
            headers=bearer(text) | {"Idempotency-Key": "one"},
        ).json()["id"]
        for text in (ada, bob)
    }
    assert len(ids) == 2


def test_a_browser_signs_in_works_and_signs_out(browser, services, model):
    cookie = browser.cookies["modelpress_session"]
    page = browser.get("/")
    assert (page.status_code, "Sign out" in page.text) == (200, True)
    sent = browser.post(
        "/jobs",
        files={"model": ("m.onnx", model)},
        data={"preset": "int8", "csrf_token": token_in(page.text)},
    )
    assert sent.status_code == 303
    assert [job.owner_id for job in services.jobs.page("ada").items] == ["ada"]
    assert browser.get(f"/v1{sent.headers['location']}").status_code == 200
    out = browser.post("/logout", data={"csrf_token": token_in(page.text)})
    assert out.status_code == 303
    late = httpx.get(
        browser.base_url.join("/v1/jobs"), headers={"Cookie": f"modelpress_session={cookie}"}
    )
    assert late.status_code == 401


def test_a_stranger_is_shown_the_login_and_comes_back_to_the_page(client, ada):
    with httpx.Client(base_url=client.base_url) as browser:
        sent = browser.get("/jobs")
        assert (sent.status_code, sent.headers["location"]) == (303, "/login?next=/jobs")
        refused = sign_in(browser, "mp_aaaaaaaa_" + "a" * 43)
        assert (refused.status_code, "not a valid key" in refused.text) == (401, True)
        assert sign_in(browser, ada, next="/jobs").headers["location"] == "/jobs"


@pytest.mark.parametrize(
    "address", ["//evil.example", "http://evil.example", "/\\evil", "/a\nb"]
)
def test_the_login_leads_nowhere_else(address):
    assert _ours(address) == "/"


def test_a_session_cookie_is_for_our_pages_only(browser, client, model):
    cookie = f"modelpress_session={browser.cookies['modelpress_session']}"
    ours = {"Cookie": cookie, "Origin": str(client.base_url).rstrip("/")}
    for headers, status in (
        ({"Cookie": cookie}, 403),
        ({"Cookie": cookie, "Origin": "http://evil.example"}, 403),
        ({"Cookie": cookie, "Sec-Fetch-Site": "cross-site"}, 403),
        (ours, 201),
    ):
        answer = httpx.post(client.base_url.join("/v1/models"), content=model, headers=headers)
        assert answer.status_code == status
    forged = browser.post("/jobs", files={"model": ("m.onnx", model)}, data={"csrf_token": "x"})
    assert forged.status_code == 403
    assert browser.post("/logout", data={"csrf_token": "x"}).status_code == 403


@pytest.mark.parametrize("https", [False, True])
def test_the_session_cookie_is_out_of_reach(serving, settings, https):
    with serving(settings.model_copy(update={"https": https})) as (client, services):
        _, text = services.keys.create("ada", "x")
        page = client.get("/login")
        cookie = page.headers["set-cookie"].partition(";")[0]  # over http it stays at home
        form = {"key": text, "csrf_token": token_in(page.text)}
        signed = client.post("/login", data=form, headers={"Cookie": cookie})
        set_cookie = signed.headers["set-cookie"]
    assert "HttpOnly" in set_cookie
    assert "SameSite=strict" in set_cookie
    assert ("Secure" in set_cookie) == https


@pytest.mark.parametrize(
    ("server", "headers", "local"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("::ffff:127.0.0.1", {}, True),
        ("10.0.0.7", {}, False),
        ("0.0.0.0", {}, False),  # noqa: S104 - an address to refuse
        ("/run/modelpress.sock", {}, False),
        ("127.0.0.1", {"x-forwarded-for": "10.0.0.7"}, False),
        ("127.0.0.1", {"forwarded": "for=10.0.0.7"}, False),
    ],
)
def test_without_keys_only_this_machine_is_answered(server, headers, local):
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert is_local(Request({"type": "http", "server": (server, 80), "headers": raw})) == local


def test_a_proxied_request_needs_a_key_or_permission(serving, settings):
    proxied = {"X-Forwarded-For": "10.0.0.7"}
    for allowed, status in ((False, 401), (True, 200)):
        with serving(settings.model_copy(update={"allow_open": allowed})) as (client, _):
            assert client.get("/v1/jobs", headers=proxied).status_code == status
