from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnxruntime.quantization import QuantType, quantize_dynamic

from tests.models import Feeds, build, context, normal, opened, run, sqnr, written
from worker.compression import graph
from worker.compression.errors import CompressionWarning
from worker.compression.passes import DynamicQuantization, Target

GEMMS = """
g (float[n,32] x) => (float[n,16] y, float[n,16] z) {
    [first] h = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (x, w, b)
    r = Relu (h)
    [second] y = Gemm (r, v, c)
    [third] z = MatMul (r, v)
}
"""
RECURRENT = """
g (float[t,n,16] x) => (float[t,d,n,24] y, float[d,n,24] h) {
    ww = Unsqueeze (w, axis)
    wr = Unsqueeze (r, axis)
    turned = Transpose <perm = [1, 0, 2, 3]> (ww)
    back = Squeeze (turned, second)
    whole = Squeeze (wr, axis)
    [lstm] y, h, = LSTM <direction = "DIRECTION", hidden_size = 24> (x, back, whole, b)
}
"""


def gemms(*, opset: int = 17) -> onnx.ModelProto:
    weights = {
        "w": normal(24, 32, seed=1),
        "b": normal(24, seed=2),
        "v": normal(24, 16, seed=3),
        "c": normal(1, 16, seed=4),
    }
    return build(GEMMS, weights, opset=opset)


def recurrent(direction: str) -> onnx.ModelProto:
    count = 2 if direction == "bidirectional" else 1
    weights = {
        "w": normal(count, 96, 16, seed=1, scale=0.3),
        "r": normal(count, 96, 24, seed=2, scale=0.3),
        "b": normal(count, 192, seed=3, scale=0.3),
        "axis": np.array([0], np.int64),
        "second": np.array([1], np.int64),
    }
    return build(RECURRENT.replace("DIRECTION", direction), weights)


def quantized(
    model: onnx.ModelProto, folder: Path, target: Target | None = None, **settings: Any
) -> Path:
    pass_ = DynamicQuantization(**settings)
    path = folder / "dynamic.onnx"
    graph.save(pass_.apply(opened(model), context(folder, [], target=target)), path)
    onnx.checker.check_model(str(path))
    return path


def feeds(*shape: int) -> Feeds:
    return [{"x": normal(*shape, seed=seed)} for seed in range(4)]


def closeness(model: onnx.ModelProto, path: Path, given: Feeds, folder: Path) -> float:
    original = written(model, folder / "original.onnx")
    return min(
        sqnr(before, after)
        for feed in given
        for before, after in zip(
            run(original, feed, folder), run(path, feed, folder), strict=True
        )
    )


def fused(path: Path) -> dict[str, int]:
    """What ONNX Runtime runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path.with_name("optimized.onnx"))
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return graph.op_counts(graph.load(path.with_name("optimized.onnx")))


@pytest.mark.parametrize("opset", [9, 11, 17])
def test_gemm_and_matmul_keep_alpha_beta_and_bias(opset: int, tmp_path: Path) -> None:
    path = quantized(gemms(opset=opset), tmp_path)
    assert closeness(gemms(opset=opset), path, feeds(5, 32), tmp_path) > 32
    counts = graph.op_counts(graph.load(path))
    assert counts["MatMulInteger"] == 3
    assert "Gemm" not in counts


def test_an_activation_is_scaled_once_and_an_equal_weight_stored_once(tmp_path: Path) -> None:
    model = graph.load(quantized(gemms(), tmp_path))
    assert graph.op_counts(model)["DynamicQuantizeLinear"] == 2
    stored = [v for v in model.graph.initializers.values() if v.dtype == 3]  # int8
    assert len(stored) == 2


def test_it_is_what_onnxruntimes_own_quantizer_makes(tmp_path: Path) -> None:
    weights = {"w": normal(64, 48, seed=1), "v": normal(48, 32, seed=2)}
    text = """
    g (float[n,t,64] x) => (float[n,t,32] y) {
        [one] h = MatMul (x, w)
        r = Relu (h)
        [two] y = MatMul (r, v)
    }
    """
    model = build(text, weights)
    original = written(model, tmp_path / "float.onnx")
    quantize_dynamic(
        original, tmp_path / "oracle.onnx", per_channel=True, weight_type=QuantType.QInt8
    )
    path = quantized(model, tmp_path)
    for feed in feeds(2, 3, 64):
        expected = run(tmp_path / "oracle.onnx", feed, tmp_path)[0]
        np.testing.assert_allclose(run(path, feed, tmp_path)[0], expected, rtol=1e-5, atol=1e-4)
    assert fused(path)["DynamicQuantizeMatMul"] == 2


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_an_lstm_whose_weights_stand_behind_operators_becomes_int8(
    direction: str, tmp_path: Path
) -> None:
    model = recurrent(direction)
    path = quantized(model, tmp_path)
    assert graph.op_counts(graph.load(path))["DynamicQuantizeLSTM"] == 1
    assert closeness(model, path, feeds(6, 2, 16), tmp_path) > 25
    assert path.stat().st_size < 0.6 * (tmp_path / "original.onnx").stat().st_size


def test_layers_in_bodies_of_if_become_int8(tmp_path: Path) -> None:
    text = """
    g (float[n,32] x) => (float[n,32] y) {
        s = ReduceSum <keepdims = 0> (x)
        c = Greater (s, zero)
        y = If (c) <
            then_branch = then () => (float[n,32] t) { [a] t = MatMul (x, w) },
            else_branch = otherwise () => (float[n,32] e) {
                [b] h = MatMul (x, w)
                [c] e = Gemm (h, v)
            }
        >
    }
    """
    weights = {"w": normal(32, 32), "v": normal(32, 32, seed=1), "zero": np.float32([0])[0]}
    model = build(text, weights | {"zero": np.zeros((), np.float32)})
    path = quantized(model, tmp_path)
    assert graph.op_counts(graph.load(path))["MatMulInteger"] == 3
    assert closeness(model, path, feeds(3, 32), tmp_path) > 30
    assert path.stat().st_size < 0.7 * (tmp_path / "original.onnx").stat().st_size


def test_a_convolution_is_float_unless_asked_for_and_says_why(tmp_path: Path) -> None:
    text = """
    g (float[n,8,9,9] x) => (float[n,16,9,9] y) {
        [conv] y = Conv <pads = [1, 1, 1, 1]> (x, w, b)
    }
    """
    model = build(text, {"w": normal(16, 8, 3, 3), "b": normal(16, seed=1)})
    with pytest.warns(CompressionWarning, match="several times slower"):
        quantized(model, tmp_path)
    path = quantized(model, tmp_path, ops=["Conv"])
    assert graph.op_counts(graph.load(path))["ConvInteger"] == 1
    assert closeness(model, path, feeds(2, 8, 9, 9), tmp_path) > 30


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = GRU <hidden_size = 8> (x3, w3, r3)", "no dynamic int8 kernel for GRU"),
        ("y = MatMul (left, x)", "first input is constant"),
        ("y = MatMul (x, x)", "computed, not constant"),
        ("y = MatMul (x, broken)", "infinite values or NaN"),
        ("y = MatMul (x, small)", "fewer than 256"),
    ],
)
def test_what_stays_float_has_its_reason(body: str, reason: str, tmp_path: Path) -> None:
    broken = normal(16, 32)
    broken[0, 0] = np.nan
    held = {
        "left": normal(16, 16),
        "broken": broken,
        "small": normal(16, 4),
        "w3": normal(1, 24, 16),
        "r3": normal(1, 24, 8),
        "axis": np.array([0], np.int64),
    }
    text = f"g (float[16,16] x) => (y) {{ x3 = Unsqueeze (x, axis)  [layer] {body} }}"
    model = opened(build(text.replace("(y)", "(float y)"), held))
    with pytest.warns(CompressionWarning, match="nothing was quantized"):
        result = DynamicQuantization().apply(model, context(tmp_path, []))
    assert reason in graph.notes(result)["layer"]


def test_seven_bits_are_taken_for_cpus_without_vnni(tmp_path: Path) -> None:
    path = quantized(gemms(), tmp_path, target=Target(cpu="x86-avx2"))
    held = graph.load(path).graph.initializers.values()
    arrays = [v.const_value.numpy() for v in held if v.const_value is not None]
    assert max(np.abs(a.astype(int)).max() for a in arrays if a.dtype == np.int8) <= 64


def test_layers_kept_float_by_name_stay_float(tmp_path: Path) -> None:
    counts = graph.op_counts(graph.load(quantized(gemms(), tmp_path, keep_float=["second"])))
    assert (counts["Gemm"], counts["MatMulInteger"]) == (1, 2)


def test_half_floats_that_stay_float_are_stored_as_half_floats(tmp_path: Path) -> None:
    text = """
    g (float16[n,8,9] x) => (float16[n,64] y) {
        h = Conv (x, w)
        f = Flatten (h)
        y = MatMul (f, v)
    }
    """
    half = {"w": normal(64, 8, 9), "v": normal(64, 64, seed=1)}
    model = build(text, {name: array.astype(np.float16) for name, array in half.items()})
    original = written(model, tmp_path / "half.onnx")
    path = quantized(model, tmp_path)
    assert path.stat().st_size < 0.85 * original.stat().st_size
    feed = {"x": normal(2, 8, 9).astype(np.float16)}
    expected = run(original, feed, tmp_path)[0].astype(np.float32)
    assert sqnr(expected, run(path, feed, tmp_path)[0].astype(np.float32)) > 30
