"""Both passes that move factors between layers: nothing changes as floats, int8 gains."""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from tests.models import Feeds, build, context, convnet, images, normal, opened, run, sqnr
from worker.compression import graph
from worker.compression.errors import CompressionWarning
from worker.compression.passes import (
    CrossLayerEqualization,
    SmoothQuantization,
    StaticQuantization,
)

UNEVEN = np.geomspace(0.02, 1, 16).astype(np.float32)


def applied(
    method: CrossLayerEqualization | SmoothQuantization,
    model: onnx.ModelProto,
    feeds: Feeds,
    folder: Path,
) -> tuple[onnx.ModelProto, list[str]]:
    """The model after the pass, and the codes of what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = method.apply(opened(model), context(folder, feeds))
    path = folder / "scaled.onnx"
    graph.save(result, path)
    onnx.checker.check_model(str(path), full_check=True)
    said = [one.message for one in caught]
    return onnx.load(path), [one.code for one in said if isinstance(one, CompressionWarning)]


def in_int8(model: onnx.ModelProto, feeds: Feeds, unseen: Feeds, folder: Path) -> float:
    """SQNR of the model in int8 on samples it has not seen, in dB."""
    path = folder / "int8.onnx"
    graph.save(StaticQuantization().apply(opened(model), context(folder, feeds)), path)
    wanted = np.concatenate([run(model, feed, folder)[0].ravel() for feed in unseen])
    return sqnr(wanted, np.concatenate([run(path, feed, folder)[0].ravel() for feed in unseen]))


def same(left: onnx.ModelProto, right: onnx.ModelProto, feeds: Feeds, folder: Path) -> bool:
    return all(
        np.allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(one).max())
        for feed in feeds
        for one, other in zip(run(left, feed, folder), run(right, feed, folder), strict=True)
    )


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}


# ---- convolutions

BETWEEN = {
    "relu": "b = Relu (a)",
    "leaky": "b = LeakyRelu <alpha = 0.1> (a)",
    "prelu": "b = PRelu (a, slope)",
    "pool": "r = Relu (a) b = MaxPool <kernel_shape = [2, 2]> (r)",
    "sum": "r = Relu (a) s = Conv (r, square) b = Add (r, s)",
    "depthwise": "r = Relu (a) b = Conv <group = 16> (r, deep)",
    "grouped": "r = Relu (a) b = Conv <group = 4> (r, fours)",
}


def uneven(between: str) -> onnx.ModelProto:
    """Two convolutions with something between; the first makes channels of 1 to 50 times."""
    text = f"""
    g (float[1,4,8,8] x) => (float[1,6,oh,ow] y) {{
        [first] a = Conv (x, v, "v.bias")
        {between}
        [last] y = Conv (b, w)
    }}
    """
    scale = UNEVEN[:, None, None, None]
    values = {
        "v": normal(16, 4, 3, 3, seed=1) * scale,
        "v.bias": normal(16, seed=2) * UNEVEN,
        "w": normal(6, 16, 1, 1, seed=3) / scale.reshape(1, 16, 1, 1),
        "slope": np.abs(normal(16, 1, 1, seed=4)),
        "square": normal(16, 16, 1, 1, seed=5) * scale / scale.reshape(1, 16, 1, 1) / 16,
        "deep": np.abs(normal(16, 1, 1, 1, seed=6)) + 0.5,
        "fours": normal(16, 4, 1, 1, seed=7),
    }
    used = {name: value for name, value in values.items() if name in text.replace('"', "")}
    return build(text, used)


def pictures(count: int, *, seed: int = 0) -> Feeds:
    return [{"x": normal(1, 4, 8, 8, seed=seed + place)} for place in range(count)]


@pytest.mark.parametrize("between", BETWEEN)
def test_convolutions_compute_what_they_did(tmp_path: Path, between: str) -> None:
    model = uneven(BETWEEN[between])
    result, said = applied(CrossLayerEqualization(), model, pictures(4), tmp_path)
    assert said == []
    assert not np.allclose(weights(model)["v"], weights(result)["v"])
    assert same(model, result, pictures(4, seed=100), tmp_path)


@pytest.mark.parametrize("between", ["relu", "sum"])
def test_int8_comes_closer_by_equal_ranges(tmp_path: Path, between: str) -> None:
    model, feeds, unseen = uneven(BETWEEN[between]), pictures(16), pictures(16, seed=100)
    result, _ = applied(CrossLayerEqualization(), model, feeds, tmp_path)
    before, after = (in_int8(one, feeds, unseen, tmp_path) for one in (model, result))
    assert after > before + 6


def test_a_batch_norm_makes_the_factors_where_it_is_not_folded(tmp_path: Path) -> None:
    model = convnet()
    result, _ = applied(CrossLayerEqualization(), model, images(8), tmp_path)
    assert same(model, result, images(4, seed=50), tmp_path)


@pytest.mark.parametrize(
    "between",
    [
        "b = Sigmoid (a)",
        "b = Clip (a, zero, six)",
        "b = Relu (a) z = Exp (b)",
    ],
)
def test_what_would_change_is_left(tmp_path: Path, between: str) -> None:
    model = uneven("b = Relu (a)")
    outputs = "float[1,6,oh,ow] y" + (", float[1,16,6,6] z" if " z = " in between else "")
    whole = f"""
    g (float[1,4,8,8] x) => ({outputs}) {{
        [first] a = Conv (x, v, "v.bias")
        {between}
        [last] y = Conv (b, w)
    }}
    """
    held = {name: weights(model)[name] for name in ("v", "v.bias", "w")}
    if "Clip" in between:
        held |= {"zero": np.float32(0), "six": np.float32(6)}
    model = build(whole, held)
    result, said = applied(CrossLayerEqualization(), model, pictures(4), tmp_path)
    assert said == ["nothing_scaled"]
    assert all((weights(result)[name] == held[name]).all() for name in ("v", "v.bias", "w"))


def test_a_shared_weight_and_an_output_are_left(tmp_path: Path) -> None:
    text = """
    g (float[1,16,8,8] x) => (float[1,16,8,8] y, float[1,16,8,8] b) {
        a = Conv (x, v)
        b = Relu (a)
        c = Conv (b, v)
        y = Conv (c, v)
    }
    """
    model = build(text, {"v": normal(16, 16, 1, 1) * UNEVEN[:, None, None, None]})
    feeds = [{"x": normal(1, 16, 8, 8)}]
    _, said = applied(CrossLayerEqualization(), model, feeds, tmp_path)
    assert said == ["nothing_scaled"]


# ---- MatMul and Gemm

NORMS = {
    "whole": "n = LayerNormalization <axis = -1> (x, gamma, beta)",
    "decomposed": """
        m = ReduceMean <axes = [-1]> (x) d = Sub (x, m) p = Mul (d, d)
        o = ReduceMean <axes = [-1]> (p) e = Add (o, small) q = Sqrt (e) u = Div (d, q)
        s = Mul (u, gamma) n = Add (s, beta)
    """,
}


def block(norm: str, *, residual: bool = False) -> onnx.ModelProto:
    """A LayerNorm with a few large channels, then two products; input [1,t,16]."""
    end = "r = Add (n, c) y = Tanh (r)" if residual else "y = Tanh (c)"
    text = f"""
    g (float[1,t,16] x) => (float[1,t,16] y) {{
        {NORMS[norm]}
        [left] a = MatMul (n, v)
        [right] b = MatMul (n, w)
        c = Add (a, b)
        {end}
    }}
    """
    gamma = np.where(np.arange(16) < 2, 40, 0.5).astype(np.float32)
    held = {
        "gamma": gamma,
        "beta": normal(16, seed=1, scale=0.1),
        "v": normal(16, 16, seed=2) / np.sqrt(gamma)[:, None],
        "w": normal(16, 16, seed=3) / np.sqrt(gamma)[:, None],
        "small": np.float32(1e-5),
    }
    return build(text, {name: one for name, one in held.items() if name in text})


def rows(count: int, *, seed: int = 0) -> Feeds:
    return [{"x": normal(1, 5 + place % 3, 16, seed=seed + place)} for place in range(count)]


@pytest.mark.parametrize(("norm", "alpha"), [("whole", 0.5), ("decomposed", "auto")])
def test_factors_go_into_a_layer_norm(
    tmp_path: Path, norm: str, alpha: float | Literal["auto"]
) -> None:
    model, feeds, unseen = block(norm), rows(16), rows(16, seed=100)
    result, said = applied(SmoothQuantization(alpha=alpha), model, feeds, tmp_path)
    assert said == []
    assert len(result.graph.node) == len(model.graph.node)
    assert same(model, result, unseen, tmp_path)
    before, after = (in_int8(one, feeds, unseen, tmp_path) for one in (model, result))
    assert after > before + 3


def test_where_a_residual_sum_reads_the_tensor_a_mul_is_inserted(tmp_path: Path) -> None:
    model, feeds, unseen = block("whole", residual=True), rows(16), rows(16, seed=100)
    result, said = applied(SmoothQuantization(), model, feeds, tmp_path)
    assert said == []
    ops = [node.op_type for node in result.graph.node]
    assert ops.count("Mul") == 1
    assert same(model, result, unseen, tmp_path)


def test_alpha_is_a_share() -> None:
    with pytest.raises(ValidationError):
        SmoothQuantization(alpha=1.5)
