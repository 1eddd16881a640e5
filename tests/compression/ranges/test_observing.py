from pathlib import Path

import numpy as np
import pytest

from tests.models import build, convnet, images, normal, written
from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.ranges import observe, observing


def test_intermediate_tensors_and_inputs_are_watched(tmp_path: Path) -> None:
    path = written(convnet(), tmp_path / "a.onnx")
    feeds = images(4)
    samples = CalibrationSet(feeds, "calibration")
    observed = observe(path, ["x", "r", "y"], samples, histograms=False).tensors
    every = np.concatenate([feed["x"] for feed in feeds])
    assert observed["x"].range("minmax") == (float(every.min()), float(every.max()))
    assert observed["r"].minimum == 0
    assert set(observed) == {"x", "r", "y"}


def test_integers_and_tensors_never_computed_are_absent(tmp_path: Path) -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y) {
        i = Shape (x)
        y = Relu (x)
    }
    """
    path = written(build(text, {}), tmp_path / "a.onnx")
    samples = CalibrationSet([{"x": normal(1, 4)}], "calibration")
    assert set(observe(path, ["i", "y"], samples, histograms=True).tensors) == {"y"}


def test_samples_of_varying_shape_are_taken_in(tmp_path: Path) -> None:
    text = "g (float[n,t] x) => (float[n,t] y) { y = Relu (x) }"
    path = written(build(text, {}), tmp_path / "a.onnx")
    feeds = [{"x": np.full((1, size), size, np.float32)} for size in (3, 70, 5)]
    seen = observe(path, ["y"], CalibrationSet(feeds, "calibration"), histograms=True)
    assert seen.tensors["y"].range("minmax") == (3.0, 70.0)


def test_what_does_not_fit_into_memory_at_once_is_watched_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(convnet(), tmp_path / "a.onnx")
    samples = CalibrationSet(images(3), "calibration")
    names = ["c", "b", "r", "d", "a", "y"]
    graph.name_nodes(graph.load(path))
    whole = observe(path, names, samples, histograms=True).tensors
    held: list[int] = []
    make = observing._with_outputs

    def counted(path: Path, group: list[str]) -> Path:
        held.append(len(group))
        return make(path, group)

    monkeypatch.setattr(observing, "_HELD_BYTES", 5000)  # two tensors of [1,8,8,8]
    monkeypatch.setattr(observing, "_with_outputs", counted)
    parts = observe(path, names, samples, histograms=True).tensors
    assert len(held) > 2
    for name in names:
        # Other outputs, other fusions: equal up to rounding.
        assert parts[name].range("percentile") == pytest.approx(whole[name].range("percentile"))


def test_nothing_stays_beside_the_model(tmp_path: Path) -> None:
    model = graph.load(written(convnet(), tmp_path / "a.onnx"))
    graph.spill(model, tmp_path / "s.onnx")
    before = set(tmp_path.iterdir())
    samples = CalibrationSet(images(1), "calibration")
    observed = observe(tmp_path / "s.onnx", ["r"], samples, histograms=False)
    assert observed.tensors["r"].seen
    assert set(tmp_path.iterdir()) == before


def noise(count: int, *, outlier_at: int | None = None) -> CalibrationSet:
    feeds = [{"x": np.tanh(normal(1, 4096, seed=seed))} for seed in range(count)]
    if outlier_at is not None:
        feeds[outlier_at]["x"][0, 0] = 9
    return CalibrationSet(feeds, "calibration")


@pytest.mark.parametrize(("outlier_at", "used"), [(None, 64), (40, 96), (70, 64)])
def test_samples_are_used_until_ranges_settle(
    tmp_path: Path, outlier_at: int | None, used: int
) -> None:
    text = "g (float[n,t] x) => (float[n,t] y) { y = Neg (x) }"
    path = written(build(text, {}), tmp_path / "a.onnx")
    told: list[str] = []
    seen = observe(
        path,
        ["x", "y"],
        noise(130, outlier_at=outlier_at),
        histograms=False,
        progress=lambda share, message: told.append(message),
    )
    assert seen.samples == used
    assert told[-1] == f"ranges taken from {used} of 130 samples"
    assert seen.tensors["x"].maximum == (9 if outlier_at == 40 else pytest.approx(1, abs=0.01))


def test_few_samples_are_all_used(tmp_path: Path) -> None:
    text = "g (float[n,t] x) => (float[n,t] y) { y = Neg (x) }"
    path = written(build(text, {}), tmp_path / "a.onnx")
    assert observe(path, ["y"], noise(63), histograms=False).samples == 63


def test_padding_is_masked_out(tmp_path: Path) -> None:
    text = """
    g (float[n,t,2] x, int64[n,t] attention_mask) => (float[n,t,2] y, int64[n,t] m) {
        y = Neg (x)
        m = Identity (attention_mask)
    }
    """
    path = written(build(text, {}), tmp_path / "a.onnx")
    x = np.float32([[[1, 2], [3, 4], [99, -99]]])
    feed = {"x": x, "attention_mask": np.int64([[1, 1, 0]])}
    seen = observe(path, ["x", "y"], CalibrationSet([feed], "calibration"), histograms=True)
    assert seen.tensors["x"].range("minmax") == (1, 4)
    assert seen.tensors["y"].range("minmax") == (-4, -1)
