"""Models with a state: samples form sequences, and results carry their own state."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from tests.models import build, normal, written
from worker.compression import CompressionError, compress, graph
from worker.compression.calibration import (
    CalibrationSet,
    carried,
    open_samples,
    split,
    states,
)
from worker.compression.errors import CompressionWarning
from worker.compression.fidelity import Reference

LINK = {"s": {"from_output": "sN", "initial": "zeros"}}


def counter(path: Path, drift: float = 0.0) -> Path:
    """Adds what comes in to its state; `drift` is the error of a result in each step."""
    text = """
    counter (float[b,4] x, float[b,4] s) => (float[b,4] y, float[b,4] sN) {
        a = Add (x, s)
        sN = Add (a, drift)
        y = Mul (sN, two)
    }
    """
    weights = {"drift": np.full(4, drift, np.float32), "two": np.full(4, 2, np.float32)}
    return written(build(text, weights), path)


def recurrent(path: Path) -> Path:
    text = """
    recurrent (float[b,8] x, float[b,16] h) => (float[b,5] y, float[b,16] hN) {
        [inner] i = MatMul (x, w)
        [outer] o = MatMul (h, u)
        a = Add (i, o)
        hN = Tanh (a)
        [head] y = MatMul (hN, v)
    }
    """
    weights = {
        "w": normal(8, 16, seed=1),
        "u": normal(16, 16, seed=2, scale=0.2),
        "v": normal(16, 5, seed=3),
    }
    return written(build(text, weights), path)


def ones(count: int) -> CalibrationSet:
    return CalibrationSet([{"x": np.ones((1, 4), np.float32)}] * count, "evaluation")


def linked(path: Path, samples: CalibrationSet, folder: Path) -> CalibrationSet:
    held = states(LINK, graph.inputs(path), graph.outputs(path))
    return carried(path, samples, held, workdir=folder)


def test_samples_get_the_state_that_the_model_came_to(tmp_path: Path) -> None:
    whole = linked(counter(tmp_path / "m.onnx"), ones(4), tmp_path)
    assert [float(feed["s"][0, 0]) for feed in whole] == [0, 1, 2, 3]


def test_a_missing_number_in_the_keys_begins_a_new_sequence(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    x = np.arange(4, dtype=np.float32)[None] / 8
    np.savez(data, **{f"{number}|x": x + number for number in (0, 1, 2, 7, 8)})
    path = counter(tmp_path / "m.onnx")
    specs = [spec for spec in graph.inputs(path) if spec.name == "x"]
    found = open_samples(data, specs, workdir=tmp_path, source="evaluation")
    whole = linked(path, found, tmp_path)
    assert [float(feed["s"][0, 0]) for feed in whole] == [0, 0, 1, 0, 7]
    assert whole.sequences == [range(3), range(3, 5)]


def test_a_result_carries_its_own_state_so_that_errors_add_up(tmp_path: Path) -> None:
    original, result = counter(tmp_path / "m.onnx"), counter(tmp_path / "r.onnx", drift=0.1)
    samples = linked(original, ones(10), tmp_path)
    kinds = {"y": "value", "sN": "state"}
    fidelity, _ = Reference(original, samples, kinds, workdir=tmp_path).compare(result)
    assert fidelity.outputs[0].max_abs == pytest.approx(10 * 0.1 * 2, rel=1e-4)
    # Without a state to carry, every step would begin at the truth.
    apart = CalibrationSet(list(samples), "evaluation")
    fidelity, _ = Reference(original, apart, kinds, workdir=tmp_path).compare(result)
    assert fidelity.outputs[0].max_abs == pytest.approx(0.1 * 2, rel=1e-4)


def test_a_part_that_begins_inside_a_sequence_begins_with_the_originals_state(
    tmp_path: Path,
) -> None:
    original, result = counter(tmp_path / "m.onnx"), counter(tmp_path / "r.onnx", drift=0.1)
    samples = linked(original, ones(10), tmp_path).take([2, 3, 7, 8, 9])
    assert samples.sequences == [range(2), range(2, 5)]
    kinds = {"y": "value", "sN": "state"}
    fidelity, _ = Reference(original, samples, kinds, workdir=tmp_path).compare(result)
    assert fidelity.outputs[0].max_abs == pytest.approx(3 * 0.1 * 2, rel=1e-4)


@pytest.mark.parametrize("lengths", [[40], [5, 15, 10, 10], [10] * 8])
def test_the_parts_of_a_split_keep_sequences_in_order(
    tmp_path: Path, lengths: list[int]
) -> None:
    starts = np.cumsum(lengths)[:-1]
    samples = CalibrationSet(
        [{"x": np.full((1, 4), index, np.float32)} for index in range(sum(lengths))],
        "calibration",
        starts=frozenset(int(start) for start in starts),
        carried={"s": "sN"},
    )
    with pytest.warns(CompressionWarning, match=r"steps of \d sequences?") as told:
        parts = split(samples, None, seed=3)
    assert [one.message.code for one in told] == ["few_sequences"]  # type: ignore[union-attr]
    pieces = 0
    for part in (parts.calibrate, parts.select, parts.report):
        for sequence in part.sequences:
            places = [int(part[index]["x"][0, 0]) for index in sequence]
            assert places == list(range(places[0], places[0] + len(places)))
            assert not set(places[1:]) & {int(start) for start in starts}
            pieces += 1
    assert pieces <= len(lengths) + 2


WRONG = {
    "unknown output": ({"s": {"from_output": "z"}}, "no output 'z'"),
    "unknown input": ({"q": {"from_output": "sN"}}, "'q' is no input"),
    "another beginning": ({"s": {"from_output": "sN", "initial": "ones"}}, "'zeros' only"),
    "another shape": ({"s": {"from_output": "narrow"}}, "shape"),
    "another type": ({"s": {"from_output": "whole"}}, "int64"),
    "a shape that does not fit": ({"s": {"from_output": "sN", "shape": [1, 5]}}, "fit"),
    "a word unknown": ({"s": {"from_output": "sN", "begin": 1}}, "begin"),
    "no link": ({"s": {"initial": "zeros"}}, "from_output"),
    "one output twice": (
        {"s": {"from_output": "sN"}, "x": {"from_output": "sN"}},
        "two inputs",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_link_is_refused_with_its_name(tmp_path: Path, case: str) -> None:
    text = """
    m (float[b,4] x, float[b,4] s)
        => (float[b,4] sN, float[b,2] narrow, int64[b,4] whole) {
        sN = Add (x, s)
        narrow = MatMul (sN, w)
        whole = Cast <to = 7> (sN)
    }
    """
    path = written(build(text, {"w": normal(4, 2)}), tmp_path / "m.onnx")
    given, words = WRONG[case]
    with pytest.raises(CompressionError, match=words) as caught:
        states(given, graph.inputs(path), graph.outputs(path))
    assert caught.value.code == "invalid_inputs"
    assert caught.value.hint


def test_a_state_that_comes_out_in_another_shape_is_refused(tmp_path: Path) -> None:
    text = """
    m (float[b,4] x, float[b,k] s) => (float[b,j] sN) { sN = Concat <axis = 1> (x, s) }
    """
    path = written(build(text, {}), tmp_path / "m.onnx")
    with pytest.raises(CompressionError, match=r"comes out as \[1, 5\]"):
        linked(path, ones(3), tmp_path)


@pytest.mark.parametrize("real", [True, False])
def test_int8_of_a_recurrent_model_is_judged_over_sequences(tmp_path: Path, real: bool) -> None:
    path, data = recurrent(tmp_path / "m.onnx"), tmp_path / "data.npz"
    np.savez(data, x=normal(64, 8, seed=5))
    report = compress(
        path,
        "int8",
        out=tmp_path / "out",
        calibration=data if real else None,
        inputs={"h": {"from_output": "hN"}},
        quiet=lambda: nullcontext(False),
    )
    assert report.fidelity is not None
    kinds = {output.name: output.kind for output in report.fidelity.outputs}
    assert kinds == {"y": "class", "hN": "state"}
    assert (report.verdict.outcome == "not_verified") is not real
    assert {layer.precision for layer in report.layers} == {"int8"}
