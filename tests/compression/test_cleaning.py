import warnings
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.models import branches, build, convnet, images, normal, run, written
from worker.compression import graph
from worker.compression.cleaning import clean
from worker.compression.cleaning.cleaner import STEPS
from worker.compression.errors import CompressionWarning, InvalidModel


def cleaned(
    model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], folder: Path
) -> ir.Model:
    """The cleaned model, after the check that its outputs are those of the upload."""
    path = written(model, folder / "upload.onnx")
    (folder / "out").mkdir(exist_ok=True)
    cleaning = clean(path, folder / "out" / "clean.onnx", feeds=feeds)
    assert cleaning.skipped == []
    for feed in feeds:
        before, after = run(path, feed, folder), run(cleaning.path, feed, folder)
        for left, right in zip(before, after, strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4 * np.abs(left).max())
    return graph.load(cleaning.path)


def test_batch_norm_is_folded_and_layers_keep_their_names(tmp_path: Path) -> None:
    model = cleaned(convnet(), images(2), tmp_path)
    assert "BatchNormalization" not in graph.op_counts(model)
    assert [weight.nodes[0].name for weight in graph.weights(model)] == [
        "conv",
        "depthwise",
        "fc",
    ]


def test_batch_norm_is_folded_into_transposed_convolution_and_gemm(tmp_path: Path) -> None:
    text = """
    g (float[n,3,4,4] x) => (float[n,5] y) {
        t = ConvTranspose <strides = [2, 2]> (x, w)
        b = BatchNormalization (t, s1, b1, m1, v1)
        p = GlobalAveragePool (b)
        f = Flatten (p)
        z = Gemm (f, fc)
        y = BatchNormalization (z, s2, b2, m2, v2)
    }
    """
    weights = {"w": normal(3, 4, 2, 2), "fc": normal(4, 5)}
    for number, size in ((1, 4), (2, 5)):
        for name in ("s", "b", "m", "v"):
            weights[f"{name}{number}"] = np.abs(normal(size, seed=number)) + 0.1
    model = cleaned(build(text, weights), [{"x": normal(2, 3, 4, 4)}], tmp_path)
    assert "BatchNormalization" not in graph.op_counts(model)


def test_a_convolution_used_twice_keeps_its_batch_norm_apart(tmp_path: Path) -> None:
    text = """
    g (float[n,3,4,4] x) => (float[n,4,4,4] y, float[n,4,4,4] z) {
        z = Conv (x, w)
        y = BatchNormalization (z, s, s, s, s)
    }
    """
    weights = {"w": normal(4, 3, 1, 1), "s": np.full(4, 0.5, np.float32)}
    cleaned(build(text, weights), [{"x": normal(2, 3, 4, 4)}], tmp_path)


def test_zeros_stay_zero_through_folding(tmp_path: Path) -> None:
    proto = convnet()
    weight = onnx.numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weight.ravel()[::3] = 0
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "conv.weight"))
    model = cleaned(proto, images(2), tmp_path)
    folded = next(w for w in graph.weights(model) if w.name == "conv.weight").array()
    np.testing.assert_array_equal(folded == 0, weight == 0)


def test_the_operator_set_is_raised_and_symbols_stay(tmp_path: Path) -> None:
    model = cleaned(convnet(opset=11), images(2), tmp_path)
    assert graph.opset(model) >= 17
    assert [spec.shape for spec in graph.inputs(model)] == [("n", 3, 8, 8)]
    assert [spec.shape for spec in graph.outputs(model)] == [("n", 10)]


def test_constants_become_initializers_and_computed_shapes_are_folded(tmp_path: Path) -> None:
    text = """
    g (float[n,4,2] x) => (float[n,8] y) {
        k = Constant <value = float[8,8] {
            1,0,0,0,0,0,0,0, 0,1,0,0,0,0,0,0, 0,0,1,0,0,0,0,0, 0,0,0,1,0,0,0,0,
            0,0,0,0,1,0,0,0, 0,0,0,0,0,1,0,0, 0,0,0,0,0,0,1,0, 0,0,0,0,0,0,0,1}> ()
        a = Constant <value_ints = [-1]> ()
        b = Constant <value_ints = [8]> ()
        shape = Concat <axis = 0> (a, b)
        r = Reshape (x, shape)
        y = MatMul (r, k)
    }
    """
    model = cleaned(build(text, {}), [{"x": normal(3, 4, 2)}], tmp_path)
    assert graph.op_counts(model) == {"Reshape": 1, "MatMul": 1}


def test_a_wrong_declared_output_shape_breaks_nothing(tmp_path: Path) -> None:
    proto = convnet()
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7
    model = cleaned(proto, images(2), tmp_path)
    # What a run has proved wrong is not declared again.
    assert [spec.shape for spec in graph.outputs(model)] == [("n", None)]


def test_models_with_bodies_are_cleaned(tmp_path: Path) -> None:
    cleaned(branches(), [{"x": normal(2, 4)}, {"x": -normal(2, 4)}], tmp_path)


def test_a_step_that_changes_the_outputs_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: ir.Model) -> ir.Model:
        weight = graph.weights(model)[0]
        weight.replace(weight.array() * 1.01)
        return model

    monkeypatch.setitem(STEPS, "lift constants", broken)
    path = written(convnet(), tmp_path / "a.onnx")
    with pytest.warns(CompressionWarning, match="lift constants") as caught:
        cleaning = clean(path, tmp_path / "b.onnx", feeds=images(1))
    assert [warning.message.code for warning in caught] == ["cleaning_step_skipped"]  # type: ignore[union-attr]
    assert "output 0 differs" in cleaning.skipped[0]
    assert "fold BatchNorm" in cleaning.applied
    assert "BatchNormalization" not in graph.op_counts(graph.load(cleaning.path))


def test_a_model_with_random_outputs_is_left_alone(tmp_path: Path) -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y) {
        r = RandomNormalLike (x)
        y = Add (x, r)
    }
    """
    path = written(build(text, {}), tmp_path / "a.onnx")
    with pytest.warns(CompressionWarning, match="two runs of the model differ"):
        cleaning = clean(path, tmp_path / "b.onnx", feeds=[{"x": normal(2, 4)}])
    assert cleaning.applied == []
    assert graph.op_counts(graph.load(cleaning.path)) == graph.op_counts(graph.load(path))


def test_nothing_is_written_beside_the_upload_or_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = tmp_path / "current"
    current.mkdir()
    monkeypatch.chdir(current)
    upload = tmp_path / "upload"
    upload.mkdir()
    path = written(convnet(opset=11), upload / "a.onnx")
    (tmp_path / "out").mkdir()
    clean(path, tmp_path / "out" / "b.onnx", feeds=images(1))
    assert list(current.iterdir()) == []
    assert list(upload.iterdir()) == [path]


def test_large_models_skip_only_the_steps_that_need_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "SINGLE_FILE_BYTES", 100)
    path = written(convnet(), tmp_path / "a.onnx")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        cleaning = clean(path, tmp_path / "b.onnx", feeds=images(1))
    assert [reason.partition(":")[0] for reason in cleaning.skipped] == [
        "remove what does nothing"
    ]
    assert "BatchNormalization" not in graph.op_counts(graph.load(cleaning.path))


def test_a_malformed_model_is_refused(tmp_path: Path) -> None:
    text = "g (float[n,4] x) => (float[n,4] y) { y = Relu (missing) }"
    path = written(build(text, {}), tmp_path / "a.onnx")
    with pytest.raises(InvalidModel, match="not a valid ONNX model"):
        clean(path, tmp_path / "b.onnx", feeds=[{"x": normal(1, 4)}])
