from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from tests.models import Feeds, build, convnet, images, normal, opened, run, sqnr, written
from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.quantization import (
    INT8_OPS,
    Options,
    QuantizedWeight,
    choose,
    insert,
    prepare,
    quantize_weight,
)
from worker.compression.ranges import Observed, observe


def observed_ranges(path: Path, feeds: Feeds) -> dict[str, Observed]:
    model = graph.load(path)
    names = [value.name or "" for node in model.graph for value in node.outputs]
    names += [value.name or "" for value in model.graph.inputs]
    samples = CalibrationSet([dict(feed) for feed in feeds], "calibration")
    return dict(observe(path, names, samples, histograms=False).tensors)


def inserted(
    path: Path,
    options: Options,
    *,
    feeds: Feeds | None = None,
    weights: Mapping[str, QuantizedWeight] = {},
) -> ir.Model:
    """The prepared model file, quantized in int8 wherever it can be."""
    seen = observed_ranges(path, feeds or images(8))
    model = graph.load(path)
    choice = choose(model, INT8_OPS, set(), observed=seen, float_outputs=options.float_outputs)
    ranges = {name: one.range("minmax") for name, one in seen.items()}
    return insert(model, choice.nodes, ranges, options, weights=weights)


def residual() -> onnx.ModelProto:
    """Everything of it can be int8; input [n,3,8,8]."""
    text = """
    g (float[n,3,8,8] x) => (float[n,10] y) {
        a = Conv <pads = [1, 1, 1, 1]> (x, wa, ba)
        r = Relu (a)
        d = Conv <group = 8, pads = [1, 1, 1, 1]> (r, wd, bd)
        s = Add (d, r)
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (s)
        q = GlobalAveragePool (p)
        f = Flatten (q)
        y = Gemm <transB = 1> (f, wf, bf)
    }
    """
    arrays = {
        "wa": normal(8, 3, 3, 3), "ba": normal(8, seed=1),
        "wd": normal(8, 1, 3, 3, seed=2), "bd": normal(8, seed=3),
        "wf": normal(10, 8, seed=4), "bf": normal(10, seed=5),
    }  # fmt: skip
    return build(text, arrays)


def prepared(model: onnx.ModelProto, folder: Path) -> Path:
    graph.save(prepare(opened(model)), folder / "prepared.onnx")
    return folder / "prepared.onnx"


def oracle(path: Path, *, per_channel: bool, reduce_range: bool) -> onnx.ModelProto:
    """What onnxruntime's own quantizer makes of the same file and the same ranges."""
    from onnxruntime.quantization import (  # noqa: PLC0415 - the oracle, of this test only
        CalibrationMethod,
        QuantType,
    )
    from onnxruntime.quantization.calibrate import (  # noqa: PLC0415
        TensorData,
        TensorsData,
    )
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # noqa: PLC0415

    ranges = {
        name: TensorData(lowest=np.float32(one.minimum), highest=np.float32(one.maximum))
        for name, one in observed_ranges(path, images(8)).items()
    }
    quantizer = QDQQuantizer(
        onnx.load(path), per_channel, reduce_range, QuantType.QInt8, QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, ranges), [], [], list(INT8_OPS),
        {"WeightSymmetric": True, "ActivationSymmetric": False,
         "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
    )  # fmt: skip
    quantizer.quantize_model()
    made: onnx.ModelProto = quantizer.model.model
    return made


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {
        entry.name: onnx.numpy_helper.to_array(entry)
        for entry in model.graph.initializer
        if entry.name.endswith(("_scale", "_zero_point", "_quantized"))
    }


def test_the_numbers_are_those_of_onnxruntimes_quantizer(tmp_path: Path) -> None:
    path = prepared(residual(), tmp_path)
    for per_channel in (True, False):
        for narrow in (True, False):
            options = Options(per_channel=per_channel, seven_bit_weights=narrow)
            ours = ir.to_proto(inserted(path, options))
            expected = oracle(path, per_channel=per_channel, reduce_range=narrow)
            found = constants(ours)
            for name, array in constants(expected).items():
                if array.dtype == np.int32 and name.endswith("_zero_point"):
                    continue  # of a bias: optional
                np.testing.assert_array_equal(found[name].ravel(), array.ravel(), err_msg=name)
            for feed in images(3):
                pair = (run(model, feed, tmp_path)[0] for model in (expected, ours))
                np.testing.assert_allclose(*pair, rtol=0, atol=1e-6)


def test_ready_weights_take_the_place_of_rounding_to_nearest(tmp_path: Path) -> None:
    path = prepared(convnet(), tmp_path)
    array = normal(10, 8, seed=8)
    up = quantize_weight(array, axis=0)
    given = QuantizedWeight(np.ceil(array / up.scale[:, None]).astype(np.int8), up.scale, 0)
    model = inserted(path, Options(), weights={"fc.weight": given})
    made = model.graph.initializers
    tensor = made["fc.weight_quantized"].const_value
    assert tensor is not None
    np.testing.assert_array_equal(tensor.numpy(), given.values)
    assert "fc.weight" not in made


def test_the_same_ranges_give_the_same_bytes(tmp_path: Path) -> None:
    path = prepared(convnet(), tmp_path)
    first, second = (
        ir.to_proto(inserted(path, Options())).SerializeToString(deterministic=True)
        for _ in range(2)
    )
    assert first == second


def test_a_float_reader_of_a_float_tensor_reads_what_was_not_rounded(tmp_path: Path) -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y, float[n,4] z) {
        y = MatMul (x, w)
        z = Neg (x)
    }
    """
    model = build(text, {"w": normal(4, 4)})
    path = prepared(model, tmp_path)
    feeds = [{"x": normal(8, 4, seed=seed)} for seed in range(8)]
    result = inserted(path, Options(), feeds=feeds)
    for feed in feeds:
        expected, found = run(model, feed, tmp_path), run(result, feed, tmp_path)
        np.testing.assert_array_equal(found[1], expected[1])
        assert 20 < sqnr(expected[0], found[0]) < 80


def test_a_relu_on_a_tensor_that_the_graph_gives_keeps_what_it_gives(tmp_path: Path) -> None:
    text = """
    g (float[n,3,8,8] x) => (float[n,4,8,8] c, float[n,4,8,8] y) {
        c = Conv (x, w)
        r = Relu (c)
        y = Conv (r, v)
    }
    """
    model = build(text, {"w": normal(4, 3, 1, 1), "v": normal(4, 4, 1, 1, seed=1)})
    result = inserted(prepared(model, tmp_path), Options())
    path = written(ir.to_proto(result), tmp_path / "int8.onnx")
    feed = images(1, seed=9)[0]
    expected, found = run(model, feed, tmp_path), run(path, feed, tmp_path)
    assert expected[0].min() < -1
    for left, right in zip(expected, found, strict=True):
        assert sqnr(left, right) > 25


def test_long_names_do_not_make_a_small_model_grow(tmp_path: Path) -> None:
    model = residual()
    long = {
        name: f"model/{name * 200}" for name in ("wa", "ba", "wd", "bd", "a", "r", "d", "s")
    }
    for node in model.graph.node:
        node.input[:] = [long.get(name, name) for name in node.input]
        node.output[:] = [long.get(name, name) for name in node.output]
    for entry in model.graph.initializer:
        entry.name = long.get(entry.name, entry.name)
    path = prepared(model, tmp_path)
    made = ir.to_proto(inserted(path, Options())).graph
    assert max(len(entry.name) for entry in made.initializer) < 60
    assert run(ir.to_proto(inserted(path, Options())), images(1)[0], tmp_path)[0].shape == (
        1,
        10,
    )
