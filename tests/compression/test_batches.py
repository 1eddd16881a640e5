"""Rows of a batch are samples where the model is seen to treat them apart, and only there."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from tests.models import build, normal, written
from worker.compression import compress
from worker.compression.calibration import CalibrationSet, by_rows

GRAPHS = {
    "rows apart": ("float[n,4] x", "float[n,3] y", "y = MatMul (x, w)"),
    "a fixed batch": ("float[8,4] x", "float[8,3] y", "y = MatMul (x, w)"),
    "normalized over the batch": (
        "float[n,4] x",
        "float[n,4] y",
        "m = ReduceMean <axes = [0]> (x) y = Sub (x, m)",
    ),
    "one answer for all": ("float[n,4] x", "float[k,4] y", "y = ReduceMax <axes = [0]> (x)"),
    "the first axis is turned around": (
        "float[n,4] x",
        "float[n,4] y",
        "c = CumSum <reverse = 1> (x, zero) y = Mul (c, c)",
    ),
    "noise": (
        "float[n,4] x",
        "float[n,4] y",
        "r = RandomNormalLike (x) y = Add (x, r)",
    ),
}


def model(folder: Path, case: str) -> Path:
    given, made, nodes = GRAPHS[case]
    weights = {"w": normal(4, 3), "zero": np.int64(0).reshape(())}
    used = {name: array for name, array in weights.items() if f"{name})" in nodes}
    return written(build(f"m ({given}) => ({made}) {{ {nodes} }}", used), folder / "m.onnx")


def feeds(count: int = 3, rows: int = 8) -> CalibrationSet:
    return CalibrationSet(
        [{"x": normal(rows, 4, seed=seed)} for seed in range(count)], "calibration"
    )


def test_few_feeds_of_several_rows_become_a_sample_for_each_row(tmp_path: Path) -> None:
    given = feeds()
    labels = [np.arange(8) + 8 * number for number in range(3)]
    samples = CalibrationSet(given.feeds, "calibration", labels)
    found = by_rows(model(tmp_path, "rows apart"), samples)
    assert found.batched
    assert len(found) == found.size == 24
    assert [one["x"].tolist() for one in found] == [
        [row] for feed in given for row in feed["x"].tolist()
    ]
    assert found.labels is not None
    assert [one.tolist() for one in found.labels] == [[number] for number in range(24)]


def test_rows_of_a_fixed_batch_are_counted_but_not_cut(tmp_path: Path) -> None:
    found = by_rows(model(tmp_path, "a fixed batch"), feeds())
    assert found.batched
    assert (len(found), found.size) == (3, 24)


@pytest.mark.parametrize("case", list(GRAPHS)[2:])
def test_rows_that_hang_together_stay_one_sample(tmp_path: Path, case: str) -> None:
    found = by_rows(model(tmp_path, case), feeds())
    assert not found.batched
    assert (len(found), found.size) == (3, 3)


def test_many_feeds_stay_whole_and_many_rows_make_few_pieces(tmp_path: Path) -> None:
    path = model(tmp_path, "rows apart")
    assert len(by_rows(path, feeds(40))) == 40
    assert len(by_rows(path, feeds(4, rows=200))) == pytest.approx(64, abs=8)


@pytest.mark.parametrize(("count", "verified"), [(5, True), (1, False)])
def test_rows_of_batches_verify_a_result(tmp_path: Path, count: int, verified: bool) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, **{f"{number}|x": feed["x"] for number, feed in enumerate(feeds(count))})
    report = compress(
        model(tmp_path, "rows apart"),
        "int8",
        out=tmp_path / "out",
        calibration=data,
        quiet=lambda: nullcontext(False),
    )
    assert (report.verdict.outcome != "not_verified") is verified
    assert report.fidelity is not None
    assert report.fidelity.samples == 2 * count
    assert report.latency[0].shapes == {"x": [8, 4]}
