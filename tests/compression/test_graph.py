from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.models import branches, build, convnet, images, normal, opened, run, written
from worker.compression import graph
from worker.compression.errors import InvalidModel, InvalidRecipe


def test_a_model_is_the_same_after_load_and_save(tmp_path: Path) -> None:
    path = written(convnet(), tmp_path / "a.onnx")
    graph.save(graph.load(path), tmp_path / "b.onnx")
    feed = images(1)[0]
    np.testing.assert_array_equal(
        run(path, feed, tmp_path)[0], run(tmp_path / "b.onnx", feed, tmp_path)[0]
    )


def test_external_data_is_counted_and_written_into_one_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.onnx"
    ir.save(opened(convnet()), path, external_data="weights.bin", size_threshold_bytes=0)
    data = (tmp_path / "in" / "weights.bin").stat().st_size
    assert graph.file_bytes(path) == path.stat().st_size + data

    graph.save(graph.load(path), tmp_path / "b.onnx")
    assert run(tmp_path / "b.onnx", images(1)[0], tmp_path)[0].shape == (1, 10)


def test_saving_leaves_external_weights_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    ir.save(opened(convnet()), path, external_data="weights.bin", size_threshold_bytes=0)
    model = graph.load(path)
    graph.save(model, tmp_path / "b.onnx")
    tensors = [value.const_value for value in model.graph.initializers.values()]
    assert all(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)


def test_a_spilled_model_reads_its_weights_from_the_data_file(tmp_path: Path) -> None:
    weights = {"w": normal(64, 64)}
    model = opened(build("g (float[n,64] x) => (float[n,64] y) { y = MatMul (x, w) }", weights))
    spilled = graph.spill(model, tmp_path / "s.onnx")
    assert (tmp_path / "s.onnx.data").stat().st_size >= 64 * 64 * 4
    np.testing.assert_array_equal(graph.weights(spilled)[0].array(), weights["w"])


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x08\x08\x12\x07pytorch", b"\xff" * 64])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModel) as caught:
        graph.load(path)
    assert str(tmp_path) not in caught.value.message


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    path = written(convnet(), tmp_path / "a.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InvalidModel, match=r"a\.onnx"):
        graph.load(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "missing.bin", "link.bin"])
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 100_000)
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret")
    path = folder / "a.onnx"
    ir.save(opened(convnet()), path, external_data="w.bin", size_threshold_bytes=0)
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    onnx.save(proto, path)
    with pytest.raises(InvalidModel, match=r"conv\.weight"):
        graph.load(path)


def test_a_data_file_that_is_too_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    ir.save(opened(convnet()), path, external_data="w.bin", size_threshold_bytes=0)
    (tmp_path / "w.bin").write_bytes(b"x" * 10)
    with pytest.raises(InvalidModel, match="beyond the end"):
        graph.load(path)


def test_inputs_keep_symbols_and_leave_out_initializers() -> None:
    model = build("g (float[n,?,8] x, float[4] w) => (float[n] y) { y = Relu (x) }", {})
    model.graph.initializer.append(onnx.numpy_helper.from_array(normal(4), "w"))
    (spec,) = graph.inputs(opened(model))
    assert (spec.name, spec.dtype, spec.shape) == ("x", np.dtype(np.float32), ("n", None, 8))


def test_an_input_without_a_rank_says_so() -> None:
    model = build("g (float[n] x) => (float[n] y) { y = Relu (x) }", {})
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert not graph.inputs(opened(model))[0].ranked


def test_a_negative_size_is_a_free_axis() -> None:
    model = build("g (float[n,4] x) => (float[n,4] y) { y = Relu (x) }", {})
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    assert graph.inputs(opened(model))[0].shape == (None, 4)


def test_more_axes_than_can_be_computed_with_are_refused() -> None:
    axes = ",".join(["1"] * 65)
    model = build(f"g (float[{axes}] x) => (float[{axes}] y) {{ y = Relu (x) }}", {})
    with pytest.raises(InvalidModel, match="65 axes"):
        graph.inputs(opened(model))


def test_a_sequence_input_is_refused() -> None:
    text = """
    g (seq(float[n]) x) => (float[n] y) {
        i = Constant <value_int = 0> ()
        y = SequenceAt (x, i)
    }
    """
    with pytest.raises(InvalidModel, match="'x' is not a tensor"):
        graph.inputs(opened(build(text, {})))


def test_weights_are_found_behind_what_exporters_put_before_them() -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y) {
        direct = MatMul (x, w)
        k = Constant <value = float[4,4] {1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16}> ()
        i = Identity (k)
        through_constant = MatMul (direct, i)
        t = Transpose <perm = [1, 0]> (u)
        through_transpose = MatMul (through_constant, t)
        c = Cast <to = 1> (h)
        through_cast = MatMul (through_transpose, c)
        y = MatMul (through_cast, w)
    }
    """
    weights = {"u": normal(4, 4), "w": normal(4, 4), "h": normal(4, 4).astype(np.float16)}
    found = graph.weights(opened(build(text, weights)))
    # Initializers in the order of the file, then constants; a shared weight once.
    assert [weight.name for weight in found] == ["u", "w", "h", "k"]
    assert [len(weight.nodes) for weight in found] == [1, 2, 1, 1]


def test_weights_inside_of_if_bodies_are_found() -> None:
    assert {weight.name for weight in graph.weights(opened(branches()))} == {"w", "v"}


def test_replacing_a_weight_works_in_constant_nodes_and_keeps_the_type(tmp_path: Path) -> None:
    text = """
    g (float16[n,2] x) => (float16[n,2] y) {
        k = Constant <value = float16[2,2] {1, 0, 0, 1}> ()
        y = MatMul (x, k)
    }
    """
    model = opened(build(text, {}))
    (weight,) = graph.weights(model)
    weight.replace(np.array([[0, 2], [2, 0]], np.float32))
    feed = {"x": np.array([[1, 3]], np.float16)}
    np.testing.assert_array_equal(run(model, feed, tmp_path)[0], [[6, 2]])


def test_a_weight_is_arranged_as_its_consumer_sees_it() -> None:
    text = """
    g (float[n,6] x) => (float[n,2] y) {
        r = Reshape (w, shape)
        t = Transpose <perm = [1, 0]> (r)
        y = MatMul (x, t)
    }
    """
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    weights = {"w": array, "shape": np.array([2, -1])}
    (weight,) = graph.weights(opened(build(text, weights)))
    use = weight.uses[0]
    np.testing.assert_array_equal(use.arranged(array), array.reshape(2, 6).T)
    assert use.reduction_axis == -2


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/layer1/layer1.0/downsample/downsample.0/Conv", "layer1.0.downsample.0"),
        ("/encoder/layer.0/attention/query/MatMul", "encoder.layer.0.attention.query"),
        ("Conv_3", ""),
    ],
)
def test_module_paths_are_read_from_node_names(name: str, path: str) -> None:
    assert graph.module_path(name) == path


@pytest.mark.parametrize("pattern", ["conv", "conv.weight", "con*", "*.weight"])
def test_patterns_match_nodes_initializers_and_wildcards(pattern: str) -> None:
    weight = graph.weights(opened(convnet()))[0]
    assert graph.matches(pattern, weight)


def test_a_pattern_that_matches_nothing_lists_the_names() -> None:
    found = graph.weights(opened(convnet()))
    with pytest.raises(InvalidRecipe, match=r"fc\.weight") as caught:
        graph.select(found, [], ["nothing.like.this"])
    assert caught.value.code == "pattern_matches_nothing"


def test_exclude_wins_over_include() -> None:
    found = graph.weights(opened(convnet()))
    chosen = graph.select(found, ["conv", "fc"], ["fc"])
    assert [weight.name for weight in chosen] == ["conv.weight"]


def test_macs_come_from_the_shapes_of_a_run(tmp_path: Path) -> None:
    path = written(convnet(), tmp_path / "a.onnx")
    assert graph.macs(path, images(1)[0]) == {
        "conv": 8 * 64 * 27,
        "depthwise": 8 * 64 * 9,
        "fc": 80,
    }


def test_macs_count_the_branch_that_ran(tmp_path: Path) -> None:
    path = written(branches(), tmp_path / "a.onnx")
    assert graph.macs(path, {"x": np.ones((2, 4), np.float32)}) == {"then_matmul": 32}


def test_macs_tell_nodes_without_a_name_apart(tmp_path: Path) -> None:
    text = "g (float[n,4] x) => (float[n,4] y) { a = MatMul (x, w) y = MatMul (a, w) }"
    path = written(build(text, {"w": normal(4, 4)}), tmp_path / "a.onnx")
    counts = graph.macs(path, {"x": normal(1, 4)})
    assert sorted(counts.values()) == [16, 16]


def test_parameters_leave_out_scales_and_shapes() -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y) {
        d = DequantizeLinear <axis = 1> (w, scale, zero)
        m = MatMul (x, d)
        y = Reshape (m, shape)
    }
    """
    weights = {
        "w": np.array([[1, 3], [2, 0], [1, 3], [5, 3]], np.uint8),
        "scale": np.ones(2, np.float32),
        "zero": np.array([1, 3], np.uint8),
        "shape": np.array([-1, 2]),
    }
    # Where the value is the zero point, the weight is zero.
    assert graph.parameters(opened(build(text, weights))) == (8, 3)


def test_op_counts_reach_into_bodies() -> None:
    assert graph.op_counts(opened(branches()))["MatMul"] == 2


def test_notes_stay_out_of_the_file(tmp_path: Path) -> None:
    model = opened(convnet())
    graph.note(model, "conv", "first")
    graph.note(model, "conv", "second")
    graph.save(model, tmp_path / "a.onnx")
    assert graph.notes(model) == {"conv": "first"}
    assert graph.notes(graph.load(tmp_path / "a.onnx")) == {}


def test_a_model_that_onnxruntime_refuses_is_named_without_its_path(tmp_path: Path) -> None:
    text = "g (float[n,4] x) => (float[n,4] y) { y = NoSuchOperator (x) }"
    path = written(build(text, {}), tmp_path / "a.onnx")
    with pytest.raises(InvalidModel, match=r"a\.onnx") as caught:
        graph.session(path)
    assert str(tmp_path) not in caught.value.message
