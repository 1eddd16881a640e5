import json
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from tests.models import (
    Feeds,
    branches,
    build,
    context,
    convnet,
    images,
    normal,
    opened,
    run,
    sqnr,
    written,
)
from worker.compression import graph
from worker.compression.errors import CompressionWarning, InvalidRecipe
from worker.compression.passes import StaticQuantization, Target


def quantized(model: onnx.ModelProto, feeds: Feeds, folder: Path, **settings: Any) -> Path:
    """The int8 file; any warning is an error (pytest)."""
    result = StaticQuantization(**settings).apply(opened(model), context(folder, feeds))
    path = folder / "int8.onnx"
    graph.save(result, path)
    onnx.checker.check_model(str(path))
    return path


def kernels(path: Path, feed: dict[str, np.ndarray]) -> Counter[str]:
    """Kernels that ONNX Runtime runs, by its own profile."""
    running = graph.session(path, profile_prefix=path.with_name("profile"))
    running.run(None, feed)
    events = json.loads(Path(running.end_profiling()).read_text())
    return Counter(
        event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")
    )


def closeness(model: onnx.ModelProto, path: Path, feeds: Feeds, folder: Path) -> float:
    """Worst SQNR of the int8 file over all feeds and outputs, in dB."""
    return min(
        sqnr(left, right)
        for feed in feeds
        for left, right in zip(run(model, feed, folder), run(path, feed, folder), strict=True)
    )


def initializers(path: Path, dtype: ir.DataType) -> dict[str, np.ndarray]:
    held = graph.load(path).graph.initializers
    return {
        name: value.const_value.numpy()
        for name, value in held.items()
        if value.const_value is not None and value.const_value.dtype == dtype
    }


def line(*, count: int = 8, width: int = 4) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(2, width, seed=seed)} for seed in range(count)]


@pytest.mark.parametrize("format", ["qdq", "qoperator"])
def test_every_layer_runs_an_int8_kernel_and_stays_close(tmp_path: Path, format: str) -> None:
    feeds = images(16)
    path = quantized(convnet(), feeds, tmp_path, format=format)
    ran = kernels(path, feeds[0])
    assert ran["QLinearConv"] == 2
    assert ran["QGemm"] == 1
    assert not {"Conv", "FusedConv", "Gemm"} & set(ran)
    assert closeness(convnet(), path, feeds, tmp_path) > 25


def test_ranges_give_the_scales_of_onnxruntimes_own_calibration(tmp_path: Path) -> None:
    from onnxruntime.quantization import (  # noqa: PLC0415 - the oracle, of this test only
        CalibrationDataReader,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = iter(images(4))

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    text = """
    g (float[n,3,8,8] x) => (float[n,4,6,6] y) {
        c = Conv (x, w, b)
        y = Relu (c)
    }
    """
    model = build(text, {"w": normal(4, 3, 3, 3), "b": normal(4)})
    quantize_static(
        model,
        tmp_path / "oracle.onnx",
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    ours = quantized(model, images(4), tmp_path)
    for dtype in (ir.DataType.FLOAT, ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32):
        expected = initializers(tmp_path / "oracle.onnx", dtype)
        found = initializers(ours, dtype)
        if dtype == ir.DataType.INT32:  # the zero point of a bias may be left out, and is
            expected.pop("b_quantized_zero_point")
        assert set(expected) == set(found)
        for name, array in expected.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-6, err_msg=name)


def test_weights_have_a_scale_for_each_channel_unless_told_otherwise(tmp_path: Path) -> None:
    each = initializers(quantized(convnet(), images(2), tmp_path), ir.DataType.FLOAT)
    assert each["conv.weight_scale"].shape == (8,)
    one = initializers(
        quantized(convnet(), images(2), tmp_path, per_channel=False), ir.DataType.FLOAT
    )
    assert one["conv.weight_scale"].shape == ()


def test_activations_are_unsigned_unless_asked(tmp_path: Path) -> None:
    path = quantized(convnet(), images(2), tmp_path)
    assert "x_zero_point" in initializers(path, ir.DataType.UINT8)
    path = quantized(convnet(), images(2), tmp_path, activations="int8")
    assert "x_zero_point" in initializers(path, ir.DataType.INT8)


@pytest.mark.parametrize(
    ("weights", "cpu", "largest"),
    [
        ("int7", "auto", 64),
        ("auto", "x86-avx2", 64),
        ("auto", "x86-vnni", 127),
        ("int8", "x86-avx2", 127),
    ],
)
def test_seven_bits_are_used_where_eight_would_saturate(
    tmp_path: Path, weights: str, cpu: str, largest: int
) -> None:
    ctx = context(tmp_path, images(2), target=Target(cpu=cpu))
    model = StaticQuantization(weights=weights).apply(opened(convnet()), ctx)
    graph.save(model, tmp_path / "a.onnx")
    values = initializers(tmp_path / "a.onnx", ir.DataType.INT8)["conv.weight_quantized"]
    assert np.abs(values.astype(int)).max() == largest


def test_zeros_stay_zero(tmp_path: Path) -> None:
    model = convnet()
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.ravel()[::2] = 0
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "conv.weight"))
    path = quantized(model, images(2), tmp_path)
    values = initializers(path, ir.DataType.INT8)["conv.weight_quantized"]
    assert (values.ravel()[::2] == 0).all()


def test_an_outlier_widens_minmax_and_not_percentile(tmp_path: Path) -> None:
    text = "g (float[n,4096] x) => (float[n,4] y) { y = MatMul (x, w) }"
    model = build(text, {"w": normal(4096, 4)})
    feeds = [{"x": normal(8, 4096, seed=seed)} for seed in range(4)]
    feeds[2]["x"][0, 0] = 1000
    scales = [
        initializers(quantized(model, feeds, tmp_path, calibration=method), ir.DataType.FLOAT)
        for method in ("minmax", "percentile")
    ]
    assert scales[0]["x_scale"] > 3.9
    assert scales[1]["x_scale"] < 0.1


# ---- graphs that break stock quantization


@pytest.mark.parametrize("opset", [9, 11, 12, 13])
def test_old_operator_sets_get_weights_per_channel(tmp_path: Path, opset: int) -> None:
    path = quantized(convnet(opset=opset), images(4), tmp_path)
    assert kernels(path, images(1)[0])["QLinearConv"] == 2


def test_weights_in_constant_nodes_are_quantized(tmp_path: Path) -> None:
    text = """
    g (float[n,2] x) => (float[n,2] y) {
        k = Constant <value = float[2,2] {1, 2, 3, 4}> ()
        y = MatMul (x, k)
    }
    """
    path = quantized(build(text, {}), line(width=2), tmp_path)
    assert kernels(path, line(width=2)[0])["MatMulIntegerToFloat"] == 1


def test_a_shared_weight_under_transpose_and_identity_is_quantized(tmp_path: Path) -> None:
    text = """
    g (float[n,8] x) => (float[n,8] y) {
        t = Transpose (w)
        i = Identity (w)
        a = MatMul (x, t)
        r = Relu (a)
        b = MatMul (r, i)
        y = Gemm <transB = 1> (b, w)
    }
    """
    model, feeds = build(text, {"w": normal(8, 8)}), line(width=8)
    path = quantized(model, feeds, tmp_path)
    assert not {"MatMul", "Gemm"} & set(kernels(path, feeds[0]))
    assert closeness(model, path, feeds, tmp_path) > 20


def test_a_shared_bias_whose_copy_would_take_the_name_of_an_activation(tmp_path: Path) -> None:
    # As in basic_pitch: onnxruntime copies the bias `conv` under the name `conv2`.
    text = """
    g (float[n,3,8,8] x) => (float[n,3,8,8] y) {
        conv2 = Conv (x, w, conv)
        n = Neg (conv2)
        y = Conv (n, w, conv)
    }
    """
    model = build(text, {"w": normal(3, 3, 1, 1), "conv": normal(3)})
    path = quantized(model, images(4), tmp_path)
    assert closeness(model, path, images(4), tmp_path) > 25


def test_names_that_the_quantizer_would_take_for_its_own(tmp_path: Path) -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y) {
        a = MatMul (x, w)
        b = Mul (a, w_scale)
        y = Add (b, x_zero_point)
    }
    """
    arrays = {"w": normal(4, 4), "w_scale": normal(4) * 100, "x_zero_point": normal(4)}
    model = build(text, arrays)
    path = quantized(model, line(), tmp_path)
    assert closeness(model, path, line(), tmp_path) > 25


@pytest.mark.filterwarnings("ignore::worker.compression.errors.CompressionWarning")
def test_what_is_int8_already_is_left_alone(tmp_path: Path) -> None:
    feeds = images(4)
    once = quantized(convnet(), feeds, tmp_path)
    with pytest.warns(CompressionWarning) as caught:
        twice = quantized(onnx.load(once), feeds, tmp_path)
    codes = {warning.message.code for warning in caught}  # type: ignore[union-attr]
    assert codes == {"already_quantized", "nothing_quantized"}
    assert graph.op_counts(graph.load(twice)) == graph.op_counts(graph.load(once))


def test_the_float_part_of_a_quantized_model_is_quantized(tmp_path: Path) -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y) {
        d = DequantizeLinear (q, s)
        [first] a = MatMul (x, d)
        b = Softmax (a)
        [second] y = MatMul (b, w)
    }
    """
    weights = {
        "q": np.ones((4, 4), np.int8),
        "s": np.float32(0.1).reshape(()),
        "w": normal(4, 4),
    }
    ctx = context(tmp_path, line())
    with pytest.warns(CompressionWarning, match="already"):
        model = StaticQuantization().apply(opened(build(text, weights)), ctx)
    assert graph.notes(model) == {"first": "quantized already"}
    assert "w_quantized" in model.graph.initializers


@pytest.mark.parametrize("cast", [False, True])
def test_half_float_weights_are_quantized_and_the_interface_stays(
    tmp_path: Path, cast: bool
) -> None:
    whole = """
    g (float16[n,4] x) => (float16[n,4] y) { a = Relu (x) y = MatMul (a, w) }
    """
    stored = """
    g (float[n,4] x) => (float[n,4] y) { c = Cast <to = 1> (w) y = MatMul (x, c) }
    """
    model = build(stored if cast else whole, {"w": normal(4, 4).astype(np.float16)})
    kind = np.float32 if cast else np.float16
    feeds = [{"x": feed["x"].astype(kind)} for feed in line()]
    path = quantized(model, feeds, tmp_path)
    assert [spec.dtype for spec in graph.inputs(path) + graph.outputs(path)] == [kind, kind]
    assert kernels(path, feeds[0])["MatMulIntegerToFloat"] == 1
    assert closeness(model, path, feeds, tmp_path) > 25


def test_a_wrong_declared_output_shape_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    model = convnet()
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    path = quantized(model, images(2), tmp_path)
    assert kernels(path, images(1)[0])["QGemm"] == 1
    assert list(current.iterdir()) == []


def test_scalars_and_empty_tensors_stay_float(tmp_path: Path) -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y, float[n,0] e) {
        s = Mul (x, two)
        m = MatMul (s, w)
        y = Add (m, two)
        e = MatMul (x, empty)
    }
    """
    arrays = {
        "two": np.float32(2).reshape(()),
        "w": normal(4, 4),
        "empty": np.zeros((4, 0), np.float32),
    }
    model = build(text, arrays)
    path = quantized(model, line(), tmp_path)
    feed = line()[0]
    assert sqnr(run(model, feed, tmp_path)[0], run(path, feed, tmp_path)[0]) > 25
    assert kernels(path, feed)["MatMulIntegerToFloat"] == 1


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
def test_a_weight_that_is_not_finite_stays_float(tmp_path: Path, odd: float) -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y, float[n,4] z) {
        [sound] y = MatMul (x, w)
        [broken] z = MatMul (x, v)
    }
    """
    broken = normal(4, 4)
    broken[0, 0] = odd
    model = build(text, {"w": normal(4, 4), "v": broken})
    result = StaticQuantization().apply(opened(model), context(tmp_path, line()))
    assert "NaN" in graph.notes(result)["broken"]
    assert {"w_quantized", "v"} <= set(result.graph.initializers)


def test_a_bias_far_larger_than_its_weights_survives(tmp_path: Path) -> None:
    model = convnet()
    weights = {entry.name: entry for entry in model.graph.initializer}
    tiny = onnx.numpy_helper.to_array(weights["depthwise.weight"]).copy()
    tiny[2] = 1e-12
    weights["depthwise.weight"].CopyFrom(onnx.numpy_helper.from_array(tiny, "depthwise.weight"))
    path = quantized(model, images(8), tmp_path)
    assert closeness(model, path, images(8), tmp_path) > 25


def test_boxes_and_scores_are_not_joined_in_int8(tmp_path: Path) -> None:
    text = """
    g (float[n,3,8,8] x) => (float[n,6,8,8] y) {
        boxes = Conv (x, wide, bias)
        scores = Conv (x, narrow)
        y = Concat <axis = 1> (boxes, scores)
    }
    """
    arrays = {
        "wide": normal(4, 3, 1, 1, scale=100),
        "bias": normal(4, scale=100),
        "narrow": normal(2, 3, 1, 1, scale=0.1),
    }
    model, feeds = build(text, arrays), images(8)
    path = quantized(model, feeds, tmp_path)
    scores = [run(which, feeds[0], tmp_path)[0][:, 4:] for which in (model, path)]
    assert sqnr(*scores) > 25
    assert kernels(path, feeds[0])["QLinearConv"] == 2


def test_a_join_of_like_ranges_is_int8(tmp_path: Path) -> None:
    text = """
    g (float[n,3,8,8] x) => (float[n,4,8,8] y) {
        a = Conv (x, w)
        b = Conv (x, v)
        c = Concat <axis = 1> (a, b)
        y = Conv (c, u)
    }
    """
    arrays = {"w": normal(2, 3, 1, 1), "v": normal(2, 3, 1, 1, seed=1), "u": normal(4, 4, 1, 1)}
    path = quantized(build(text, arrays), images(4), tmp_path)
    assert kernels(path, images(1)[0])["QLinearConcat"] == 1


def attention(mask: float) -> onnx.ModelProto:
    text = """
    g (float[n,t,8] x, bool[n,1,t] keep) => (float[n,t,8] y) {
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        kt = Transpose <perm = [0, 2, 1]> (k)
        raw = MatMul (q, kt)
        bias = Where (keep, zero, mask)
        masked = Add (raw, bias)
        p = Softmax (masked)
        y = MatMul (p, x)
    }
    """
    arrays = {
        "wq": normal(8, 8, scale=0.5),
        "wk": normal(8, 8, seed=1, scale=0.5),
        "zero": np.float32(0).reshape(()),
        "mask": np.float32(mask).reshape(()),
    }
    return build(text, arrays)


@pytest.mark.parametrize("mask", [-3.4e38, -1e4, -np.inf])
@pytest.mark.parametrize("padded", [False, True])
def test_an_attention_mask_works_though_no_sample_may_have_used_it(
    tmp_path: Path, mask: float, padded: bool
) -> None:
    def feed(length: int, kept: int, seed: int) -> dict[str, np.ndarray]:
        keep = np.arange(length) < kept
        return {"x": normal(1, length, 8, seed=seed), "keep": keep.reshape(1, 1, length)}

    model = attention(mask)
    feeds = [feed(6 + seed, 4 if padded else 6 + seed, seed) for seed in range(6)]
    path = quantized(model, feeds, tmp_path)
    unseen = [feed(8, 5, 99)]
    assert closeness(model, path, unseen, tmp_path) > 20
    ran = kernels(path, unseen[0])
    assert ran["MatMul"] == 0


def test_products_of_integers_are_as_close_as_those_behind_q_and_dq(tmp_path: Path) -> None:
    model = attention(-1e4)
    feeds = [
        {"x": normal(1, 9, 8, seed=seed), "keep": np.ones((1, 1, 9), bool)} for seed in range(6)
    ]
    results = []
    for format in ("qdq", "qoperator"):
        (tmp_path / format).mkdir()
        results.append(quantized(model, feeds, tmp_path / format, format=format))
    behind, made = results
    assert kernels(made, feeds[0])["MatMulIntegerToFloat"] == 4
    assert (
        closeness(model, made, feeds, tmp_path) > closeness(model, behind, feeds, tmp_path) - 1
    )


def test_a_residual_add_is_int8(tmp_path: Path) -> None:
    text = """
    g (float[n,3,8,8] x) => (float[n,4,8,8] y) {
        a = Conv (x, w)
        r = Relu (a)
        b = Conv (r, v)
        s = Add (r, b)
        y = Relu (s)
    }
    """
    model = build(text, {"w": normal(4, 3, 1, 1), "v": normal(4, 4, 1, 1)})
    path = quantized(model, images(8), tmp_path)
    assert kernels(path, images(1)[0])["QLinearAdd"] == 1
    assert closeness(model, path, images(8), tmp_path) > 25


def test_layer_norm_in_primitive_operators_is_not_torn(tmp_path: Path) -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y) {
        h = MatMul (x, w)
        mean = ReduceMean <axes = [-1]> (h)
        d = Sub (h, mean)
        p = Pow (d, two)
        v = ReduceMean <axes = [-1]> (p)
        e = Add (v, epsilon)
        s = Sqrt (e)
        q = Div (d, s)
        m = Mul (q, gamma)
        y = Add (m, beta)
    }
    """
    arrays = {
        "w": normal(4, 4), "two": np.float32(2).reshape(()), "gamma": normal(4),
        "epsilon": np.float32(1e-5).reshape(()), "beta": normal(4),
    }  # fmt: skip
    path = quantized(build(text, arrays), line(), tmp_path)
    assert kernels(path, line()[0])["LayerNormalization"] == 1


@pytest.mark.parametrize(("low", "kept"), [(0.0, 0), (0.5, 1)])
def test_a_clip_is_absorbed_only_where_a_range_can_do_its_work(
    tmp_path: Path, low: float, kept: int
) -> None:
    text = """
    g (float[n,3,8,8] x) => (float[n,4,8,8] y) {
        c = Conv (x, w)
        l = Clip (c, low, high)
        y = Conv (l, v)
    }
    """
    arrays = {
        "w": normal(4, 3, 1, 1), "v": normal(4, 4, 1, 1),
        "low": np.float32(low).reshape(()), "high": np.float32(6).reshape(()),
    }  # fmt: skip
    model = build(text, arrays)
    path = quantized(model, images(4), tmp_path)
    assert graph.op_counts(graph.load(path)).get("Clip", 0) == kept
    assert closeness(model, path, images(4), tmp_path) > 25


def test_an_embedding_table_becomes_int8(tmp_path: Path) -> None:
    text = """
    g (int64[n,t] ids) => (float[n,t,4] y) {
        e = Gather (table, ids)
        y = MatMul (e, w)
    }
    """
    model = build(text, {"table": normal(512, 16), "w": normal(16, 4)})
    feeds = [{"ids": np.random.default_rng(seed).integers(0, 512, (1, 7))} for seed in range(8)]
    path = quantized(model, feeds, tmp_path)
    assert "table_quantized" in initializers(path, ir.DataType.UINT8)
    assert "table" not in initializers(path, ir.DataType.FLOAT)
    assert closeness(model, path, feeds, tmp_path) > 25


def test_a_bias_behind_matmul_of_rank_two_keeps_the_layer_int8(tmp_path: Path) -> None:
    text = "g (float[n,4] x) => (float[n,4] y) { m = MatMul (x, w) y = Add (m, b) }"
    model = build(text, {"w": normal(4, 4), "b": normal(1, 4)})
    path = quantized(model, line(), tmp_path)
    assert kernels(path, line()[0])["QGemm"] == 1
    assert closeness(model, path, line(), tmp_path) > 25


# ---- bodies of If and Loop


def test_a_model_whose_weights_are_all_in_bodies_says_that_nothing_was_done(
    tmp_path: Path,
) -> None:
    with pytest.warns(CompressionWarning, match="body of If or Loop") as caught:
        model = StaticQuantization().apply(opened(branches()), context(tmp_path, line()))
    assert caught[0].message.code == "nothing_quantized"  # type: ignore[union-attr]
    assert set(graph.notes(model)) == {"then_matmul", "else_matmul"}
    graph.save(model, tmp_path / "same.onnx")
    assert closeness(branches(), tmp_path / "same.onnx", line(), tmp_path) > 100


@pytest.mark.parametrize("read", ["c", "r"])
def test_what_bodies_read_keeps_its_values(tmp_path: Path, read: str) -> None:
    """The Relu would be absorbed by the scale of its output, which the body does not see."""
    text = f"""
    g (float[n,3,8,8] x) => (float[n,4,8,8] y) {{
        c = Conv (x, w)
        r = Relu (c)
        s = ReduceSum <keepdims = 0> (x)
        positive = Greater (s, zero)
        b = If (positive) <
            then_branch = then () => (float[n,4,8,8] t) {{ t = Sub ({read}, zero) }},
            else_branch = otherwise () => (float[n,4,8,8] e) {{ e = Conv ({read}, v) }}
        >
        d = Conv (r, v)
        y = Add (b, d)
    }}
    """
    arrays = {
        "w": normal(4, 3, 1, 1),
        "v": normal(4, 4, 1, 1),
        "zero": np.float32(0).reshape(()),
    }
    model, feeds = build(text, arrays), images(8)
    path = quantized(model, feeds, tmp_path)
    assert kernels(path, feeds[0])["QLinearConv"] == (1 if read == "c" else 2)
    assert closeness(model, path, feeds, tmp_path) > 25


# ---- settings


def test_layers_asked_for_stay_float_and_the_reason_is_kept(tmp_path: Path) -> None:
    ctx = context(tmp_path, images(2))
    model = StaticQuantization(keep_float=["dep*"]).apply(opened(convnet()), ctx)
    assert graph.notes(model) == {"depthwise": "kept float as asked"}
    assert "conv.weight_quantized" in model.graph.initializers
    assert "depthwise.weight" in model.graph.initializers


def test_a_layer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match="depthwise") as caught:
        StaticQuantization(keep_float=["nothing"]).apply(
            opened(convnet()), context(tmp_path, images(2))
        )
    assert caught.value.code == "pattern_matches_nothing"


def test_only_the_operators_asked_for_are_quantized(tmp_path: Path) -> None:
    path = quantized(convnet(), images(2), tmp_path, ops=["Gemm"])
    ran = kernels(path, images(1)[0])
    assert ran["QGemm"] == 1
    assert ran["QLinearConv"] == 0


@pytest.mark.parametrize("ops", [[], ["LayerNormalization"], ["conv"]])
def test_operators_without_an_int8_kernel_are_refused(ops: list[str]) -> None:
    with pytest.raises(ValidationError):
        StaticQuantization(ops=ops)


def test_the_model_given_may_lie_in_external_data(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    source = tmp_path / "in" / "a.onnx"
    ir.save(opened(convnet()), source, external_data="w.bin", size_threshold_bytes=0)
    model = StaticQuantization().apply(graph.load(source), context(tmp_path, images(4)))
    graph.save(model, tmp_path / "b.onnx")
    plain = written(convnet(), tmp_path / "plain.onnx")
    feed = images(1)[0]
    assert sqnr(run(plain, feed, tmp_path)[0], run(tmp_path / "b.onnx", feed, tmp_path)[0]) > 20


def test_nothing_is_said_where_all_went_well(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantized(convnet(), images(2), tmp_path)
    assert caught == []


# ---- rounding by what the layers read


def dependent(*, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    """Rows of 64 values that depend on 8: one weight can make up for another.

    Whole numbers up to 255, which int8 holds exactly: what is left is the error of the weights.
    """
    mixing = np.abs(normal(8, 64, seed=99))
    feeds = []
    for place in range(count):
        rows = np.abs(normal(64, 8, seed=seed + place)) @ mixing * 10
        rows[0, :2] = 0, 255
        feeds.append({"x": np.clip(np.rint(rows), 0, 255).astype(np.float32)})
    return feeds


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("weights", ["int8", "int7"])
@pytest.mark.parametrize("op", ["MatMul (x, w)", "Gemm (x, w, b)"])
def test_gptq_is_closer_on_samples_it_has_not_seen(
    tmp_path: Path, op: str, per_channel: bool, weights: str
) -> None:
    text = f"g (float[n,64] x) => (float[n,16] y) {{ y = {op} }}"
    model = build(text, {"w": normal(64, 16), "b": normal(16)})
    held_out = dependent(count=8, seed=1000)
    settings = {"per_channel": per_channel, "weights": weights}
    found = {}
    for rounding in ("nearest", "gptq"):
        path = quantized(
            model, dependent(count=16, seed=0), tmp_path, rounding=rounding, **settings
        )
        found[rounding] = closeness(model, path, held_out, tmp_path)
    assert found["gptq"] > found["nearest"] + 3


def test_gptq_keeps_zeros_runs_int8_kernels_and_is_the_same_for_a_seed(tmp_path: Path) -> None:
    model = convnet()
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight.ravel()[::2] = 0
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "conv.weight"))
    path = quantized(model, images(8), tmp_path, rounding="gptq")
    ran = kernels(path, images(1)[0])
    assert (ran["QLinearConv"], ran["QGemm"]) == (2, 1)
    first = initializers(path, ir.DataType.INT8)
    assert (first["conv.weight_quantized"].ravel()[::2] == 0).all()
    again = initializers(
        quantized(model, images(8), tmp_path, rounding="gptq"), ir.DataType.INT8
    )
    assert all((array == again[name]).all() for name, array in first.items())


def test_gptq_leaves_shared_weights_to_nearest(tmp_path: Path) -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y) {
        a = MatMul (x, w)
        r = Relu (a)
        y = MatMul (r, w)
    }
    """
    model = build(text, {"w": normal(4, 4)})
    plain, gptq = (
        initializers(quantized(model, line(), tmp_path, rounding=rounding), ir.DataType.INT8)
        for rounding in ("nearest", "gptq")
    )
    np.testing.assert_array_equal(plain["w_quantized"], gptq["w_quantized"])


def test_gptq_is_refused_where_it_cannot_be_written() -> None:
    with pytest.raises(ValidationError, match="qdq"):
        StaticQuantization(format="qoperator", rounding="gptq")
