import math
from pathlib import Path

import numpy as np
import pytest

from tests.models import build, convnet, images, normal, written
from worker.compression import graph, ranges
from worker.compression.calibration import CalibrationSet
from worker.compression.ranges import Observed, observe


def seen(*arrays: np.ndarray) -> Observed:
    observed = Observed()
    for array in arrays:
        observed.update(array, histogram=True)
    return observed


def test_the_range_is_exact_over_all_samples() -> None:
    arrays = [normal(10_000, seed=seed, scale=scale) for seed, scale in enumerate((0.1, 30, 2))]
    together = np.concatenate(arrays)
    assert seen(*arrays).range("minmax") == (float(together.min()), float(together.max()))


def test_a_growing_histogram_loses_no_value_and_finds_the_percentile() -> None:
    arrays = [normal(10_000, seed=seed, scale=scale) for seed, scale in enumerate((0.1, 30, 2))]
    observed = seen(*arrays)
    assert observed.counts.sum() == 30_000
    low, high = observed.range("percentile")
    together = np.concatenate(arrays)
    assert np.count_nonzero((together < low) | (together > high)) <= 3
    # A bin further in, more than one in 20,000 would be outside on either side.
    step = 2 * 2.0 ** (observed.exponent or 0) / len(observed.counts)
    assert np.count_nonzero(together < low + step) >= 1
    assert np.count_nonzero(together > high - step) >= 1
    assert low >= observed.minimum
    assert high <= observed.maximum


def test_the_order_of_the_samples_does_not_matter() -> None:
    arrays = [normal(1000, seed=seed, scale=scale) for seed, scale in enumerate((50, 0.01, 3))]
    first, second = seen(*arrays), seen(*reversed(arrays))
    np.testing.assert_array_equal(first.counts, second.counts)
    assert first.range("percentile") == second.range("percentile")


def test_one_outlier_in_a_million_is_outside_of_the_percentile() -> None:
    array = np.abs(normal(1_000_000))
    array[7] = 1000
    observed = seen(array)
    assert observed.range("minmax")[1] == 1000
    assert observed.range("percentile")[1] < 10


@pytest.mark.parametrize("special", [math.inf, -math.inf, math.nan])
def test_infinite_values_leave_a_mark_and_the_range_alone(special: float) -> None:
    observed = seen(np.array([1.0, special, -2.0], np.float32))
    assert observed.range("minmax") == (-2.0, 1.0)
    assert not observed.finite


def test_empty_and_all_zero_tensors_are_taken_in() -> None:
    observed = seen(np.zeros((0, 3), np.float32))
    assert not observed.seen
    observed.update(np.zeros(4, np.float32), histogram=True)
    assert observed.range("percentile") == (0.0, 0.0)
    observed.update(np.array([1e-30, 1e30], np.float32), histogram=True)
    assert observed.range("minmax")[1] == pytest.approx(1e30)


def test_intermediate_tensors_and_inputs_are_watched(tmp_path: Path) -> None:
    path = written(convnet(), tmp_path / "a.onnx")
    feeds = images(4)
    observed = observe(
        path, ["x", "r", "y"], CalibrationSet(feeds, "calibration"), histograms=False
    )
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
    assert set(observe(path, ["i", "y"], samples, histograms=True)) == {"y"}


def test_samples_of_varying_shape_are_taken_in(tmp_path: Path) -> None:
    text = "g (float[n,t] x) => (float[n,t] y) { y = Relu (x) }"
    path = written(build(text, {}), tmp_path / "a.onnx")
    feeds = [{"x": np.full((1, size), size, np.float32)} for size in (3, 70, 5)]
    observed = observe(path, ["y"], CalibrationSet(feeds, "calibration"), histograms=True)
    assert observed["y"].range("minmax") == (3.0, 70.0)


def test_what_does_not_fit_into_memory_at_once_is_watched_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(convnet(), tmp_path / "a.onnx")
    samples = CalibrationSet(images(3), "calibration")
    names = ["c", "b", "r", "d", "a", "y"]
    graph.name_nodes(graph.load(path))
    whole = observe(path, names, samples, histograms=True)
    held: list[int] = []
    make = ranges._with_outputs

    def counted(path: Path, group: list[str]) -> Path:
        held.append(len(group))
        return make(path, group)

    monkeypatch.setattr(ranges, "_HELD_BYTES", 5000)  # two tensors of [1,8,8,8]
    monkeypatch.setattr(ranges, "_with_outputs", counted)
    parts = observe(path, names, samples, histograms=True)
    assert len(held) > 2
    for name in names:
        # Other outputs, other fusions: equal up to rounding.
        assert parts[name].range("percentile") == pytest.approx(whole[name].range("percentile"))


def test_nothing_stays_beside_the_model(tmp_path: Path) -> None:
    model = graph.load(written(convnet(), tmp_path / "a.onnx"))
    graph.spill(model, tmp_path / "s.onnx")
    before = set(tmp_path.iterdir())
    observed = observe(
        tmp_path / "s.onnx", ["r"], CalibrationSet(images(1), "calibration"), histograms=False
    )
    assert observed["r"].seen
    assert set(tmp_path.iterdir()) == before
