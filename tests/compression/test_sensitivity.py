from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.compression.plain_twins import plain_twins
from tests.models import (
    branches,
    build,
    context,
    convnet,
    images,
    normal,
    opened,
    sqnr,
    written,
)
from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.layers import blame
from worker.compression.passes import MagnitudePruning, StaticQuantization
from worker.compression.ranges import observe
from worker.compression.sensitivity import twin_sqnr

TWO = """
two (float[n,16] x) => (float[n,4] y) {
    [first] h = Gemm <transB = 1> (x, w, b)
    [relu] r = Relu (h)
    [second] y = MatMul (r, v)
}
"""


def two(*, opset: int = 17) -> onnx.ModelProto:
    """Two layers; the first one all but ignores its first input."""
    first = normal(8, 16, seed=1)
    first[:, 0] *= 1e-7
    weights = {"w": first, "b": normal(8, seed=2), "v": normal(8, 4, seed=3)}
    return build(TWO, weights, opset=opset)


def rows(count: int = 8, *, outlier: float = 1.0) -> list[dict[str, np.ndarray]]:
    feeds = [{"x": normal(2, 16, seed=seed)} for seed in range(count)]
    for feed in feeds:
        feed["x"][:, 0] *= outlier
    return feeds


def samples(feeds: list[dict[str, np.ndarray]]) -> CalibrationSet:
    return CalibrationSet(feeds, "calibration")


def plain(path: Path, feeds: list[dict[str, np.ndarray]]) -> dict[str, float]:
    model = graph.load(path)
    read = [value.name for node in model.graph for value in node.inputs]
    seen = observe(path, read, samples(feeds), histograms=False)
    ranges = {name: one.range("minmax") for name, one in seen.tensors.items()}
    return twin_sqnr(path, plain_twins(model, ranges), samples(feeds))


def rounded(array: np.ndarray, low: float, high: float) -> np.ndarray:
    scale = (high - low) / 255
    zero = round(-low / scale)
    return (np.clip(np.rint(array / scale) + zero, 0, 255) - zero) * scale


def test_a_plain_twin_has_the_error_that_numpy_finds(tmp_path: Path) -> None:
    feeds = rows()
    found = plain(written(two(), tmp_path / "m.onnx"), feeds)
    x = np.concatenate([feed["x"] for feed in feeds])
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in two().graph.initializer}
    scale = np.abs(weights["w"]).max(1, keepdims=True) / 127
    y = x @ weights["w"].T + weights["b"]
    int8 = rounded(x, x.min(), x.max()) @ (np.rint(weights["w"] / scale) * scale).T
    assert found["first"] == pytest.approx(sqnr(y, int8 + weights["b"]), abs=0.05)


def test_the_error_of_one_layer_is_not_blamed_on_the_next(tmp_path: Path) -> None:
    path = written(two(), tmp_path / "m.onnx")
    calm, spoilt = plain(path, rows()), plain(path, rows(outlier=1000))
    assert spoilt["first"] < calm["first"] - 30
    assert spoilt["second"] == pytest.approx(calm["second"], abs=0.01)


def test_a_product_of_two_activations_has_a_twin_with_both_in_int8(tmp_path: Path) -> None:
    text = """
    m (float[2,8,8] x, float[2,8,8] z) => (float[2,8,8] y) { [product] y = MatMul (x, z) }
    """
    feeds = [{"x": normal(2, 8, 8, seed=1), "z": normal(2, 8, 8, seed=2)}]
    found = plain(written(build(text, {}), tmp_path / "m.onnx"), feeds)
    x, z = feeds[0]["x"], feeds[0]["z"]
    expected = sqnr(x @ z, rounded(x, x.min(), x.max()) @ rounded(z, z.min(), z.max()))
    assert found["product"] == pytest.approx(expected, abs=0.05)


def blamed(
    model: onnx.ModelProto, result: object, feeds: list[dict[str, np.ndarray]], folder: Path
) -> dict[str, float | None]:
    path, after = folder / "original.onnx", folder / "result.onnx"
    onnx.save(model, path)
    graph.save(result, after)
    layers = blame(path, after, samples(feeds), feed=feeds[0], notes={})
    return {layer.name: layer.sqnr_db for layer in layers}


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_every_int8_layer_is_blamed_for_its_own_error(tmp_path: Path, format: str) -> None:
    feeds = images()
    pass_ = StaticQuantization(format=format)
    result = pass_.apply(opened(convnet()), context(tmp_path, feeds))
    found = blamed(convnet(), result, feeds, tmp_path)
    guessed = plain(tmp_path / "original.onnx", feeds)
    # The result has its own ranges, biases and rounding of outputs, but not another scale.
    for name in ("depthwise", "fc"):
        assert found[name] == pytest.approx(guessed[name], abs=4)


def test_the_error_follows_the_layer_that_was_kept_float(tmp_path: Path) -> None:
    feeds = rows(outlier=1000)
    pass_ = StaticQuantization(keep_float=["first"])
    result = pass_.apply(opened(two()), context(tmp_path, feeds))
    found = blamed(two(), result, feeds, tmp_path)
    assert found["first"] is None
    assert found["second"] is not None
    assert found["second"] > 25


def test_pruned_weights_are_blamed_as_numpy_finds(tmp_path: Path) -> None:
    feeds = rows()
    pass_ = MagnitudePruning(amount=0.5, scope="layer")
    result = pass_.apply(opened(two()), context(tmp_path, feeds))
    pruned = next(one for one in graph.weights(result) if one.name == "w").array()
    found = blamed(two(), result, feeds, tmp_path)
    x = np.concatenate([feed["x"] for feed in feeds])
    full = onnx.numpy_helper.to_array(two().graph.initializer[0])
    bias = onnx.numpy_helper.to_array(two().graph.initializer[1])
    expected = sqnr(x @ full.T + bias, x @ pruned.T + bias)
    assert found["first"] == pytest.approx(expected, abs=0.05)


def test_a_result_of_a_newer_opset_is_compared_with_an_old_original(tmp_path: Path) -> None:
    feeds = images()
    result = StaticQuantization().apply(opened(convnet(opset=9)), context(tmp_path, feeds))
    found = blamed(convnet(opset=9), result, feeds, tmp_path)
    assert found["fc"] is not None
    assert found["depthwise"] is not None


def test_layers_in_branches_and_layers_that_shrank_have_no_error(tmp_path: Path) -> None:
    feeds = [{"x": normal(2, 4)}]
    assert set(blamed(branches(), opened(branches()), feeds, tmp_path).values()) == {None}
    smaller = two()
    smaller.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(normal(6, 16), "w"))
    smaller.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(normal(6), "b"))
    smaller.graph.initializer[2].CopyFrom(
        onnx.numpy_helper.from_array(normal(6, 4, seed=9), "v")
    )
    assert blamed(two(), opened(smaller), rows(), tmp_path) == {"first": None, "second": None}


def test_layers_that_share_a_weight_are_told_apart(tmp_path: Path) -> None:
    text = """
    m (float[n,8] x) => (float[n,8] y) {
        [one] h = MatMul (x, w)
        k = Mul (h, small)
        [two] y = MatMul (k, w)
    }
    """
    weights = {"w": normal(8, 8, seed=1), "small": np.full(8, 1e-3, np.float32)}
    weights["small"][0] = 1
    model = build(text, weights)
    feeds = [{"x": normal(4, 8, seed=seed)} for seed in range(4)]
    pass_ = StaticQuantization(format="qoperator")
    result = pass_.apply(opened(model), context(tmp_path, feeds))
    found = blamed(model, result, feeds, tmp_path)
    guessed = plain(tmp_path / "original.onnx", feeds)
    assert found["one"] == pytest.approx(guessed["one"], abs=4)
    assert found["two"] == pytest.approx(guessed["two"], abs=4)


def test_padding_takes_no_part_in_the_error_of_a_layer(tmp_path: Path) -> None:
    """Tokens behind the mask are huge: their error would drown that of the real ones."""
    text = """
    m (float[n,t,16] x, int64[n,t] attention_mask) => (float[n,t,4] y) {
        [layer] y = MatMul (x, v)
    }
    """
    path = written(build(text, {"v": normal(16, 4, seed=3)}), tmp_path / "m.onnx")
    tokens = [normal(2, 6, 16, seed=seed) for seed in range(4)]
    whole = [{"x": x[:, :3], "attention_mask": np.ones((2, 3), np.int64)} for x in tokens]
    for x in tokens:
        x[:, 3:] *= 100
    mask = np.array([[1, 1, 1, 0, 0, 0]] * 2)
    padded = [{"x": x, "attention_mask": mask} for x in tokens]
    twins = plain_twins(graph.load(path), {"x": (-4.0, 4.0)})
    alone = twin_sqnr(path, twins, samples(whole))
    # A sample without padding beside them is counted whole.
    assert twin_sqnr(path, twins, samples([*padded, *whole])) == pytest.approx(alone, abs=0.01)
    assert alone["layer"] > 30
