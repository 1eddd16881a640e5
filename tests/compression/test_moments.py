from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import build, context, convnet, images, normal, opened, run, written
from worker.compression import graph
from worker.compression.moments import Linear, Moments, linear_layers, stream

EVERY_ROW = 10**6


def conv(attributes: str, *, weight: np.ndarray, rank: int = 2) -> onnx.ModelProto:
    sizes = ",".join(["n", "c", *"hwd"[:rank]])
    text = f"""
    g (float[{sizes}] x) => (float[{sizes}] y) {{ [conv] y = Conv <{attributes}> (x, w) }}
    """
    return build(text, {"w": weight})


@pytest.mark.parametrize(
    ("attributes", "weight", "x"),
    [
        ("pads = [1, 1, 1, 1]", normal(5, 3, 3, 3), normal(2, 3, 6, 7)),
        ("strides = [2, 1], dilations = [1, 2]", normal(5, 3, 2, 3), normal(1, 3, 9, 9)),
        ("group = 2, pads = [0, 1, 2, 0]", normal(4, 2, 3, 3), normal(1, 4, 5, 5)),
        ("group = 6, strides = [2, 2]", normal(6, 1, 3, 3), normal(2, 6, 8, 8)),
        ('auto_pad = "SAME_UPPER", strides = [2, 2]', normal(4, 3, 3, 3), normal(1, 3, 8, 7)),
        ('auto_pad = "SAME_LOWER", strides = [2, 2]', normal(4, 3, 2, 2), normal(1, 3, 7, 8)),
        ('auto_pad = "VALID"', normal(4, 3, 2, 2), normal(1, 3, 5, 5)),
        ("pads = [2, 0], dilations = [2]", normal(4, 3, 3), normal(2, 3, 11)),
        ("strides = [1, 2, 1]", normal(2, 2, 2, 2, 2), normal(1, 2, 4, 5, 4)),
    ],
)
def test_rows_times_matrix_is_what_the_conv_gives(
    attributes: str, weight: np.ndarray, x: np.ndarray, tmp_path: Path
) -> None:
    model = conv(attributes, weight=weight, rank=weight.ndim - 2)
    (layer,) = linear_layers(opened(model).graph)
    rows = layer.rows(x, EVERY_ROW, np.random.default_rng(0))
    found = np.einsum("rgi,gio->rgo", rows, layer.matrix(weight)).reshape(len(rows), -1)
    (y,) = run(model, {"x": x}, tmp_path)
    np.testing.assert_allclose(found, np.moveaxis(y, 1, -1).reshape(found.shape), atol=1e-4)
    np.testing.assert_array_equal(layer.weight_of(layer.matrix(weight)), weight)


def test_gemm_and_matmul_give_rows_in_either_layout(tmp_path: Path) -> None:
    text = """
    g (float[n,t,4] x) => (float[m,5] y) {
        a = MatMul (x, w)
        f = Reshape (a, shape)
        y = Gemm <transB = 1> (f, v)
    }
    """
    weights = {"w": normal(4, 3), "v": normal(5, 3), "shape": np.array([-1, 3])}
    matmul, gemm = linear_layers(opened(build(text, weights)).graph)
    rng = np.random.default_rng(0)
    x = normal(2, 6, 4)
    inner = np.einsum(
        "rgi,gio->ro", matmul.rows(x, EVERY_ROW, rng), matmul.matrix(weights["w"])
    )
    np.testing.assert_allclose(inner, x.reshape(-1, 4) @ weights["w"], atol=1e-5)
    np.testing.assert_array_equal(gemm.weight_of(gemm.matrix(weights["v"])), weights["v"])
    assert (matmul.channel_axis, gemm.channel_axis) == (1, 0)


def test_computed_weights_and_transposed_inputs_are_no_linear_layers() -> None:
    text = """
    g (float[4,4] x) => (float[4,4] y) {
        a = MatMul (x, x)
        b = MatMul (w, a)
        y = Gemm <transA = 1> (b, w)
    }
    """
    assert linear_layers(opened(build(text, {"w": normal(4, 4)})).graph) == []


def streamed(folder: Path, *, count: int, held_bytes: int) -> Iterator[tuple[Linear, Moments]]:
    path = written(convnet(), folder / "model.onnx")
    layers = linear_layers(graph.load(path).graph)
    samples = context(folder, images(count)).calibration
    return stream(path, layers, samples, seed=0, held_bytes=held_bytes)


@pytest.mark.parametrize("held_bytes", [1, 10**9])
def test_moments_are_those_of_all_rows(tmp_path: Path, held_bytes: int) -> None:
    found = {
        layer.node: pair
        for pair in streamed(tmp_path, count=4, held_bytes=held_bytes)
        for layer in pair[:1]
    }
    assert set(found) == {"conv", "depthwise", "fc"}
    layer, moments = found["conv"]
    rng = np.random.default_rng(0)
    rows = np.concatenate([layer.rows(feed["x"], EVERY_ROW, rng) for feed in images(4)])[:, 0]
    assert moments.count == len(rows)
    np.testing.assert_allclose(moments.mean()[0], rows.mean(axis=0), atol=1e-5)
    centred = np.cov(rows.T, bias=True)
    np.testing.assert_allclose(moments.gram(centred=True)[0], centred, atol=1e-4)
    second = rows.T @ rows / len(rows)
    np.testing.assert_allclose(moments.gram(centred=False)[0], second, atol=1e-4)
    assert found["depthwise"][1].gram(centred=True).shape == (8, 9, 9)


def test_values_that_are_not_finite_do_not_enter() -> None:
    moments = Moments(1, 2)
    rows = np.array([[[1, 2]], [[np.nan, 1]], [[np.inf, 3]], [[3, 4]]], np.float32)
    moments.add(rows)
    np.testing.assert_array_equal(moments.mean(), [[2, 3]])
    assert moments.count == 2


@pytest.mark.parametrize("groups", [1, 2])
def test_a_large_mean_costs_no_digits(groups: int) -> None:
    rows = normal(3000, groups, 3) * np.float32([1, 2, 3]) + np.float32([3000, -2000, 0])
    for centred in (True, False):
        moments = Moments(groups, 3)
        for start in range(0, 3000, 500):
            moments.add(rows[start : start + 500] + np.float32(start > 1000))
        drawn = rows + (np.arange(3000) >= 1500).astype(np.float32)[:, None, None]
        away = drawn - (drawn.mean(axis=0, dtype=float) if centred else 0)
        wanted = np.einsum("rgi,rgj->gij", away, away, dtype=float) / 3000
        energy = np.einsum("rgi,rgi->gi", drawn, drawn, dtype=float) / 3000
        np.testing.assert_allclose(moments.energy(), energy, rtol=1e-6)
        np.testing.assert_allclose(moments.gram(centred=centred), wanted, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(moments.taken(centred=centred), wanted, rtol=1e-3, atol=1e-3)


def test_what_rounding_does_to_rows_is_kept_for_each_input() -> None:
    moments = Moments(1, 2, np.floor)
    rows = normal(300, 1, 2)
    moments.add(rows)
    left = np.floor(rows)[:, 0] - rows[:, 0]
    np.testing.assert_allclose(moments.shift()[0], left.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.noise()[0], (left**2).mean(axis=0), rtol=1e-5)


def test_rows_are_drawn_the_same_for_a_seed() -> None:
    model = conv("pads = [1, 1, 1, 1]", weight=normal(2, 3, 3, 3))
    (layer,) = linear_layers(opened(model).graph)
    draws = [layer.rows(normal(1, 3, 32, 32), 50, np.random.default_rng(s)) for s in (1, 1, 2)]
    assert draws[0].shape == (50, 1, 27)
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()
