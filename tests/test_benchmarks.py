"""What the benches conclude, and that their page is what was measured."""

import importlib
from pathlib import Path

import numpy as np
import onnx

from benchmarks.__main__ import BENCHES
from benchmarks.corpus import judged
from benchmarks.coverage import changed_answers, lost_cosine
from benchmarks.peers.__main__ import summary
from benchmarks.repeats import weights
from benchmarks.rows import Row, read
from benchmarks.table import page

ROOT = Path(__file__).parent.parent
BETTER: Row = {
    "outcome": "better", "bytes_ratio": 0.3, "seconds": 100.0, "task": {"drop": 0.0},
    "outside": {"speedup": 1.5, "interval": [1.4, 1.6], "verdict": "faster"},
}  # fmt: skip


def test_every_bench_says_what_it_measures() -> None:
    for name in BENCHES:
        assert importlib.import_module(f"benchmarks.{name}").__doc__


def test_a_kept_task_and_a_tenth_less_time_count_as_faster() -> None:
    assert judged(BETTER, "latency")["faster"]
    assert not judged(BETTER, "latency")["better_but_not"]


def test_a_better_that_lost_its_task_is_told() -> None:
    told = judged(BETTER | {"task": {"drop": 0.02}}, "latency")
    assert told["better_but_not"]
    assert not told["faster"]
    assert not told["smaller"]


def test_a_better_that_is_slower_outside_is_told() -> None:
    outside = {"speedup": 0.8, "interval": [0.7, 0.9], "verdict": "slower"}
    assert judged(BETTER | {"outside": outside}, "latency")["better_but_not"]
    assert judged(BETTER | {"outside": outside}, "size")["better_but_not"]


def test_a_peer_that_lost_its_task_is_no_rival() -> None:
    rows: list[Row] = [
        {"who": "modelpress", "kept": True, "speedup": 2.0},
        {"who": "fast and wrong", "kept": False, "speedup": 3.0},
        {"who": "right", "kept": True, "speedup": 2.1},
        {"who": "crashed", "kept": False, "error": "why"},
    ]
    told = summary("a model", rows)
    assert told["fastest_kept"] == "right"
    assert not told["held"]


def test_drops_are_counted_over_answers() -> None:
    expected, got = [np.array([[0.0, 1.0]])] * 4, [np.array([[0.0, 1.0]])] * 3
    assert changed_answers(expected, [*got, np.array([[1.0, 0.0]])]) == 0.25
    assert lost_cosine(expected, [*got, np.array([[1.0, 0.0]])]) == 0.25


def test_weights_differ_by_one_bit(tmp_path: Path) -> None:
    for name, value in (("a", 1.0), ("b", 1.0), ("c", np.nextafter(np.float32(1), 2))):
        tensor = onnx.numpy_helper.from_array(np.array([value], np.float32), "w")
        graph = onnx.helper.make_graph([], "g", [], [], [tensor])
        onnx.save(onnx.helper.make_model(graph, producer_name=name), tmp_path / name)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert weights(tmp_path / "a") != weights(tmp_path / "c")


def test_the_page_shows_what_was_measured() -> None:
    written = (ROOT / "docs" / "benchmarks.md").read_text()
    wanted = page(read(ROOT / "docs" / "benchmarks" / "results.jsonl"))
    # Below stand links, to which others add theirs.
    assert written.split("## Other pages")[0] == wanted.split("## Other pages")[0]
