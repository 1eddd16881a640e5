"""A real Chromium against a real `modelpress serve`: with script, without it, and refused."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

pytestmark = pytest.mark.system

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
SERVE = "import sys; from app.cli import main; sys.exit(main())"
MARKUP = "<img src=x onerror=alert({0})><svg onload=alert({0})>'\"><b>"
UNKNOWN_NODE = {
    "passes": [{"method": "static_quantization", "keep_float": [MARKUP.format("none")]}]
}
JOB_MS = 300_000  # a job takes seconds, but waits while any other on this host is measured


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a running service."""
    folder = tmp_path_factory.mktemp("browser")
    log = folder / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE, "serve", "--data-dir", str(folder / "data")],
            stdout=output, stderr=output, env={**os.environ, "MODELPRESS_PORT": "0"},
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"http://\S+", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield found.group()
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, service: str) -> Iterator[Page]:
    with browser.new_context(base_url=service) as context:
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        yield page
        assert wrong == []


@pytest.fixture
def plain_page(browser: Browser, service: str) -> Iterator[Page]:
    """A page of a browser that runs no script."""
    with browser.new_context(base_url=service, java_script_enabled=False) as context:
        yield context.new_page()


def wait_for(page: Page, status: str) -> None:
    """Until the job's page shows the status; if it never does, tell what the service knows."""
    try:
        expect(page.locator(".badge")).to_have_text(status, timeout=JOB_MS)
    except AssertionError:
        view = page.request.get(f"/v1/jobs/{page.url.rpartition('/')[2]}").text()
        pytest.fail(f"the page does not show {status!r}; the service says {view}")


def download(page: Page, folder: Path) -> ort.InferenceSession:
    with page.expect_download() as started:
        page.get_by_role("link", name="Download the model").click()
    file = folder / started.value.suggested_filename
    started.value.save_as(file)
    assert re.fullmatch(r"compressed-\w+\.onnx", file.name)
    return ort.InferenceSession(file, providers=["CPUExecutionProvider"])


def test_the_form_takes_a_model_and_the_job_page_gives_it_back_smaller(page, tmp_path):
    page.goto("/")
    page.set_input_files("#model", DIGITS / "digits.onnx")
    page.set_input_files("#calibration", DIGITS / "calibration.npz")
    page.set_input_files("#evaluation", DIGITS / "evaluation.npz")
    expect(page.locator("[data-chosen]").first).to_contain_text("digits.onnx · 7")
    page.get_by_label("int8", exact=False).first.check()
    page.get_by_role("button", name="Compress").click()

    page.wait_for_url("**/jobs/*")
    wait_for(page, "succeeded")
    expect(page.locator(".verdict")).to_contain_text("kB")
    report = page.frame_locator("iframe.report")
    expect(report.locator("body")).to_contain_text("digits.onnx")

    session = download(page, tmp_path)
    with np.load(DIGITS / "evaluation.npz") as data:
        answers = session.run(None, {"x": data["x"]})[0].argmax(-1)
        assert (answers == data["labels"]).mean() > 0.95

    page.goto("/jobs")
    expect(page.locator(".row").first).to_contain_text("digits.onnx")


def test_a_browser_without_script_gets_as_far(plain_page, tmp_path):
    page = plain_page
    page.goto("/")
    page.set_input_files("#model", DIGITS / "digits.onnx")
    page.check("input[value='prune-l1']")
    page.get_by_role("button", name="Compress").click()
    assert "/jobs/" in page.url
    wait_for(page, "succeeded")  # by refresh alone
    assert download(page, tmp_path).get_inputs()[0].name == "x"
    page.get_by_role("button", name="Delete").click()
    assert page.url.endswith("/jobs")


def test_a_custom_recipe_is_made_from_the_methods_of_the_form(page):
    page.goto("/")
    page.set_input_files("#model", DIGITS / "digits.onnx")
    expect(page.get_by_label("Magnitude pruning")).to_be_hidden()
    page.check("input[value='custom']")
    page.get_by_label("Magnitude pruning").check()
    method = page.locator(".method", has_text="Magnitude pruning")
    method.locator(".summary-text").click()
    method.get_by_label("Amount").fill("0.35")
    page.get_by_role("button", name="Compress").click()
    page.wait_for_url("**/jobs/*")
    page.get_by_text("Recipe", exact=True).click()
    expect(page.locator("pre")).to_contain_text('"amount": 0.35')
    page.get_by_role("button", name="Cancel").click()
    wait_for(page, "canceled")


def test_a_bad_upload_is_answered_with_the_remedy_and_keeps_the_form(page, tmp_path):
    hostile = tmp_path / "<img src=x onerror=alert(1)>.onnx"
    hostile.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    page.goto("/")
    page.set_input_files("#model", hostile)
    page.check("input[value='smallest']")
    page.get_by_role("button", name="Compress").click()
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("What to do")
    expect(problem).to_contain_text("hdf5_file")
    expect(page.locator("input[value='smallest']")).to_be_checked()
    expect(page.get_by_role("button", name="Compress")).to_be_visible()
    expect(page.locator("[data-chosen]").first).to_contain_text("<img src=x onerror=alert(1)>")


def test_a_failed_job_shows_its_reason_and_can_be_tried_again(page):
    page.goto("/")
    page.set_input_files("#model", DIGITS / "digits.pt")
    page.check("input[value='prune-l1']")
    page.get_by_role("button", name="Compress").click()
    page.wait_for_url("**/jobs/*")
    wait_for(page, "failed")
    expect(page.get_by_role("alert")).to_contain_text("missing_inputs")
    expect(page.get_by_role("alert")).to_contain_text("What to do")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("[data-badge]")).not_to_have_text("succeeded")


def hostile_net() -> bytes:
    """A net that works, with markup for every name that it has."""
    net = onnx.load(DIGITS / "digits.onnx")
    inferred = (MARKUP.format(number) for number in count())
    names: dict[str, str] = {}
    for node in net.graph.node:
        node.name = next(inferred)
        for values in (node.input, node.output):
            values[:] = [name and names.setdefault(name, next(inferred)) for name in values]
    for value in (*net.graph.initializer, *net.graph.input, *net.graph.output):
        value.name = names[value.name]
    net.graph.ClearField("value_info")
    net.producer_name = net.doc_string = net.graph.name = net.graph.doc_string = MARKUP
    net.metadata_props.add(key=MARKUP, value=MARKUP)
    return net.SerializeToString()


def test_markup_in_any_name_is_never_run(page):
    files = {"name": f"{MARKUP}.onnx", "mimeType": MARKUP, "buffer": hostile_net()}
    form = {"model": files, "name": MARKUP, "recipe": "int8"}
    job = page.request.post("/v1/jobs", multipart=form).json()
    failed = {"model": files, "name": MARKUP, "recipe": json.dumps(UNKNOWN_NODE)}
    other = page.request.post("/v1/jobs", multipart=failed).json()
    for shown, status in ((job, "succeeded"), (other, "failed")):
        page.goto(f"/jobs/{shown['id']}")
        wait_for(page, status)
        expect(page.locator("main")).to_contain_text("<img src=x")
    page.goto("/jobs")
    expect(page.locator(".row").first).to_contain_text("<img src=x")
    page.goto(f"{job['links']['self']}/report.html")
    expect(page.locator("body")).to_contain_text("<img src=x")
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_pages_fit_the_window(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    for path in ("/", "/jobs", "/docs"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
