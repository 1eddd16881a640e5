"""The page holds the proof, escapes every name, and asks nothing of the network."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from playwright.sync_api import sync_playwright

from worker.compression.benchmark import Latency, Percentiles
from worker.compression.fidelity import Accuracy, Fidelity, OutputFidelity, WorstChannel
from worker.compression.html import render
from worker.compression.html.words import milliseconds, number, percent, shortened, size
from worker.compression.recipe import Goal, Recipe
from worker.compression.report import (
    Candidate,
    Environment,
    Layer,
    LayerCost,
    Model,
    Report,
    Reproduce,
    Size,
    Step,
    Verdict,
    Warned,
)

HOSTILE = '</text></svg><script>alert(1)</script><img src=x onerror="alert(2)">'


def latency(*, threads: int, speedup: float, verdict: str) -> Latency:
    return Latency(
        shapes={"x": [1, 1, 8, 8]}, threads=threads, rounds=40,
        before=Percentiles(p50=0.101, p90=0.113, p99=0.14),
        after=Percentiles(p50=0.101 / speedup, p90=0.115 / speedup, p99=0.15 / speedup),
        speedup=speedup, interval=(speedup - 0.06, speedup + 0.05), verdict=verdict,
    )  # fmt: skip


def layer(name: str, *, ms: float | None, after: LayerCost | None, sqnr: float | None) -> Layer:
    return Layer(
        name=name, op="Conv", after=after,
        before=LayerCost(kernel="Conv", bytes=221_184, ms=ms),
        precision="int8" if after else "gone", sparsity=0.2, channels=(96, 96), sqnr_db=sqnr,
        saved_ms=0.012 if after and after.ms else None,
        reason=None if after else "folded into its neighbour",
    )  # fmt: skip


def candidate(
    name: str, *, ms: float | None, drop: float | None, **changes: object
) -> Candidate:
    fields = {
        "name": name, "recipe": Recipe(), "bytes": 204_422, "latency_ms": ms, "speedup": 1.6,
        "drop": drop, "sqnr_db": 31.0, "within_bound": True, "on_front": True, "chosen": False,
        "reason": "inside the bound, slower than the chosen one", "file": "front-1.onnx",
    }  # fmt: skip
    return Candidate.model_validate(fields | changes)


def pruned(
    name: str = "stem.weight", *, count: int = 1, **changes: object
) -> dict[str, object]:
    """What channel pruning leaves in `extra`."""
    group = {
        "name": name, "weights": [name], "readers": ["next"], "before": 64, "after": 48,
        "step": 1, "errors": [(64, 0.0), (32, 1e-3), (8, 0.2)],
    } | changes  # fmt: skip
    return {
        "channels": {
            "groups": [group] * count,
            "pinned": [{"name": name, "channels": 10, "reason": "output y keeps its shape"}],
            "saved": {"macs": 0.31, "parameters": 0.28, "channels": 0.1},
            "refitted": ["next"],
            "timed": False,
        }
    }


def report(**changes: object) -> Report:
    """A report as the digits example gives it."""
    output = OutputFidelity(
        name="logits", kind="class", identical=False, sqnr_db=33.2,
        worst_channel=WorstChannel(axis=1, index=7, sqnr_db=29.4), cosine=0.999812,
        max_abs=0.412, argmax_agreement=0.9967, drop=0.0033, interval=(0, 0.0099),
    )  # fmt: skip
    small = LayerCost(kernel="QLinearConv", bytes=55_296, ms=0.009)
    fields = {
        "model": Model(name="digits.onnx", format="onnx", bytes=752_726, sha256="ab" * 32),
        "verdict": Verdict(
            outcome="better",
            sentence="3.7× smaller and 1.65× faster; at most 0.99 % of the accuracy lost, "
            "by 300 samples that the choice did not see.",
        ),
        "goal": Goal(),
        "before": Size(
            bytes=752_726, compressed_bytes=696_100, parameters=187_178,
            nonzero_parameters=187_178, macs=4_220_000, peak_memory_bytes=9_100_000,
            ops={"Conv": 4, "BatchNormalization": 4, "Relu": 4, "Gemm": 1},
        ),
        "after": Size(
            bytes=204_422, compressed_bytes=150_300, parameters=186_858,
            nonzero_parameters=149_486, macs=4_220_000, peak_memory_bytes=6_300_000,
            ops={"Conv": 4, "QuantizeLinear": 6, "DequantizeLinear": 16, "Gemm": 1},
        ),
        "latency": [
            latency(threads=1, speedup=1.65, verdict="faster"),
            latency(threads=2, speedup=1.02, verdict="equal"),
        ],
        "fidelity": Fidelity(samples=300, source="evaluation", outputs=[output]),
        "accuracy": Accuracy(
            metric="top-1 accuracy", before=0.9883, after=0.9867, drop=0.0017,
            interval=(-0.0034, 0.0068), samples=300,
        ),
        "steps": [
            Step(
                **{"pass": "magnitude_pruning"}, seconds=0.21, bytes=752_726, fidelity=None,
                latency=None, warnings=[Warned(code="few", message="A remark of the pass.")],
            )
        ],
        "layers": [
            layer(f"/features/features.{k}/Conv", ms=0.02 + k / 900, after=small, sqnr=44 - k)
            for k in (0, 3, 7, 10)
        ] + [layer("/features/features.1/BatchNormalization", ms=0.004, after=None, sqnr=None)],
        "candidates": [
            candidate("cleaned graph", ms=0.098, drop=0, bytes=748_000),
            candidate("int8, all operators", ms=0.061, drop=0.0017, chosen=True),
            candidate("int8, Conv and Gemm", ms=0.066, drop=0.0017, on_front=False),
            candidate("int8, percentile", ms=0.06, drop=0.31, within_bound=False),
            candidate("half precision", ms=None, drop=None, bytes=None, on_front=False),
        ],
        "warnings": [Warned(code="only_zeros", message="Zeros shrink the download.")],
        "environment": Environment(
            cpu="Example CPU", flags=["avx2", "avx512_vnni"], cores=2,
            versions={"onnxruntime": "1.32.0", "modelpress": "0.1.0"},
        ),
        "reproduce": Reproduce(
            recipe=Recipe(), seed=0, sha256={"model": "ab" * 32, "calibration": "cd" * 32}
        ),
        "snippet": "import onnxruntime as ort\nsession = ort.InferenceSession('model.onnx')",
    }  # fmt: skip
    return Report.model_validate(fields | changes)


class Elements(HTMLParser):
    """Tags and attributes as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_verdict_stands_at_the_top() -> None:
    page = render(report())
    heading = re.search(r"<h1[^>]*>(.*?)</h1>", page)
    assert heading is not None
    assert heading[1].startswith("3.7× smaller and 1.65× faster")
    assert page.index("<h1") < page.index("<svg")


def test_the_heading_is_one_sentence_and_the_others_follow() -> None:
    given = report()
    long = given.verdict.model_copy(
        update={"sentence": "Done as asked. 2.5 kB are 3. That is it."}
    )
    page = render(given.model_copy(update={"verdict": long}))
    assert "<h1>Done as asked.</h1>" in page
    assert "<p>2.5 kB are 3. That is it.</p>" in page


def test_page_holds_figures_pictures_warnings_and_how_to_make_it_again() -> None:
    seen = Elements(render(report()))
    assert seen.tags.count("svg") >= 6
    for words in (
        "753 kB", "204 kB", "0.101 ms", "1.65×", "0.17 %", "top-1 accuracy", "axis 1, index 7",
        "Zeros shrink the download.", "only_zeros", "int8, percentile",
        "avx512_vnni", "onnxruntime", "cd" * 32, "InferenceSession", "A remark of the pass.",
    ):  # fmt: skip
        assert words in seen.text, words


def test_channels_are_drawn_with_their_widths_the_error_there_and_what_stays() -> None:
    seen = Elements(render(report(extra=pruned())))
    for words in ("64 → 48", "5.0e-04", "31.0 %", "output y keeps its shape"):
        assert words in seen.text, words


def test_page_needs_no_script_and_no_network() -> None:
    seen = Elements(render(report()))
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name in ("src", "href", "style")]
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert "url(" not in render(report())


@pytest.mark.parametrize(
    "place", ["model", "layer", "output", "candidate", "warning", "snippet", "group"]
)
def test_hostile_name_stays_text(place: str) -> None:
    plain = report()
    cost = LayerCost(kernel=None, bytes=1, ms=0.1)
    output = plain.fidelity.outputs[0] if plain.fidelity else pytest.fail("no fidelity")
    changes = {
        "model": {"model": plain.model.model_copy(update={"name": HOSTILE})},
        "layer": {"layers": [layer(HOSTILE, ms=0.1, after=cost, sqnr=3)]},
        "output": {"accuracy": None, "fidelity": Fidelity(
            samples=9, source="calibration",
            outputs=[output.model_copy(update={"name": HOSTILE})],
        )},
        "candidate": {"candidates": [candidate(HOSTILE, ms=k, drop=0) for k in (1, 2)]},
        "warning": {"warnings": [Warned(code="x", message=HOSTILE)]},
        "snippet": {"snippet": HOSTILE},
        "group": {"extra": pruned(HOSTILE)},
    }  # fmt: skip
    seen = Elements(render(report(**changes[place])))
    assert HOSTILE in seen.text
    assert not {"script", "img"} & set(seen.tags)


def test_report_with_nothing_measured_still_renders() -> None:
    none = Size(
        bytes=10, compressed_bytes=9, parameters=0, nonzero_parameters=0, macs=None,
        peak_memory_bytes=None, ops={},
    )  # fmt: skip
    page = render(
        report(
            before=none, after=none, latency=[], fidelity=None, accuracy=None, steps=[],
            layers=[], candidates=[], warnings=[],
        )
    )  # fmt: skip
    assert "nan" not in page
    assert "None" not in page


@pytest.mark.parametrize("changes", [
    {"extra": pruned(errors=[])},
    {"extra": pruned(errors=[(64, 0.0), (63, 0.0)], after=64)},
    {"extra": pruned(count=200)},
    {"layers": [layer("only", ms=None, after=None, sqnr=None)]},
    {"layers": [layer(f"layer.{k}", ms=0.1, after=None, sqnr=None) for k in range(200)]},
    {"candidates": [candidate("a", ms=1, drop=None), candidate("b", ms=2, drop=None)]},
    {"candidates": [candidate("a", ms=1, drop=0), candidate("b", ms=1, drop=0)]},
    {"goal": Goal(max_drop=0)},
    {"latency": [latency(threads=1, speedup=1, verdict="unreliable")]},
])  # fmt: skip
def test_every_place_in_a_picture_is_a_finite_number(changes: dict[str, object]) -> None:
    page = render(report(**changes))
    found = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    pictures = [ET.fromstring(svg) for svg in found]  # noqa: S314 - our own page
    assert pictures
    for picture in pictures:
        for element in picture.iter():
            for name in ("x", "y", "width", "height", "cx", "cy", "r", "x1", "x2", "y1", "y2"):
                place = float(element.get(name, "0").rstrip("%"))
                assert -1 <= place < 10_000, (element.tag, name, place)


def test_output_of_values_shows_its_worst_channel_against_the_bound() -> None:
    output = OutputFidelity(
        name="boxes", kind="value", identical=False, sqnr_db=54, cosine=1, max_abs=3,
        worst_channel=WorstChannel(axis=2, index=4, sqnr_db=1.5), argmax_agreement=None,
        drop=None, interval=None,
    )  # fmt: skip
    page = render(
        report(
            accuracy=None,
            fidelity=Fidelity(samples=64, source="calibration", outputs=[output]),
        )
    )
    row = re.search(r"boxes, worst channel.*?</svg>", page, re.DOTALL)
    assert row is not None
    assert "1.5 dB" in row[0]
    assert 'class="missed"' in row[0]


def test_figures_are_written_as_people_read_them() -> None:
    assert [size(n) for n in (None, 999, 752_726, 4_000_000_000)] == [
        "–", "999 B", "753 kB", "4.00 GB",
    ]  # fmt: skip
    assert [milliseconds(v) for v in (0.10123, 12.34, 1234.5)] == [
        "0.101 ms",
        "12.3 ms",
        "1234 ms",
    ]
    assert [percent(v) for v in (0.00166, -0.0034, 0.314)] == ["0.17 %", "−0.34 %", "31.4 %"]
    assert number(4_220_000) == "4.22 M"
    assert shortened("/features/features.10/conv/Conv", 14) == "/fea…conv/Conv"


@pytest.mark.system
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_the_screen_and_keeps_its_own_policy(
    width: int, chromium: Path, tmp_path: Path
) -> None:
    long = "/a/very/long/path/of/modules/without/a/single/space" * 4
    file = tmp_path / "report.html"
    plain = report()
    file.write_text(
        render(
            report(
                model=plain.model.model_copy(update={"name": long}),
                verdict=plain.verdict.model_copy(update={"sentence": f"Lost in {long}."}),
                layers=[layer(long, ms=0.1, after=None, sqnr=3)],
            )
        )
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        tab = browser.new_page(viewport={"width": width, "height": 900})
        complaints: list[str] = []
        tab.on("console", lambda message: complaints.append(message.text))
        tab.goto(file.as_uri())
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("document.styleSheets.length") == 1
        assert complaints == []
        browser.close()
