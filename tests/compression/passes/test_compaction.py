"""Compaction: fewer bytes of names, nothing else."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx

from tests.models import branches, context, images, normal, opened, run, written
from worker.compression import graph
from worker.compression.passes import Compaction

LONG = "StatefulPartitionedCall/model_1_1/" * 4


def wordy() -> onnx.ModelProto:
    """Two layers whose weights are equal, and a chain of values with long names."""
    weight = onnx.numpy_helper.from_array(normal(8, 8), "layer.weight")
    again = onnx.numpy_helper.from_array(normal(8, 8), "other.weight")
    names = [f"{LONG}{number}" for number in range(12)]
    nodes = [onnx.helper.make_node("MatMul", ["x", "layer.weight"], [names[0]], "first")]
    for before, after in pairwise(names):
        nodes.append(onnx.helper.make_node("Tanh", [before], [after], f"{after}/Tanh"))
    nodes.append(onnx.helper.make_node("MatMul", [names[-1], "other.weight"], ["y"], "last"))
    floats = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        nodes,
        "g",
        [onnx.helper.make_tensor_value_info("x", floats, ["n", 8])],
        [onnx.helper.make_tensor_value_info("y", floats, ["n", 8])],
        [weight, again],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(made, opset_imports=opset, ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def compacted(model: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "compact.onnx"
    graph.save(Compaction().apply(opened(model), context(tmp_path, images(8))), path)
    onnx.checker.check_model(str(path), full_check=True)
    return path


def test_names_are_short_and_equal_weights_are_kept_once(tmp_path: Path) -> None:
    path = compacted(wordy(), tmp_path)
    assert path.stat().st_size < 0.25 * wordy().ByteSize()
    model = onnx.load(path)
    assert [one.name for one in model.graph.initializer] == ["layer.weight"]
    assert not model.graph.value_info
    assert max(len(node.output[0]) for node in model.graph.node) <= 2


def test_layers_keep_their_names_and_their_results(tmp_path: Path) -> None:
    x = normal(3, 8)
    (before,) = run(written(wordy(), tmp_path / "wordy.onnx"), {"x": x}, tmp_path)
    path = compacted(wordy(), tmp_path)
    (after,) = run(path, {"x": x}, tmp_path)
    np.testing.assert_array_equal(before, after)
    assert {"first", "last"} <= {node.name for node in onnx.load(path).graph.node}


def test_an_input_with_a_short_name_meets_no_other(tmp_path: Path) -> None:
    text = wordy()
    for node in text.graph.node:
        node.input[:] = ["0" if name == "x" else name for name in node.input]
    text.graph.input[0].name = "0"
    (found,) = run(compacted(text, tmp_path), {"0": normal(2, 8)}, tmp_path)
    (wanted,) = run(written(text, tmp_path / "text.onnx"), {"0": normal(2, 8)}, tmp_path)
    np.testing.assert_array_equal(found, wanted)


def test_bodies_see_the_values_around_them_under_their_new_names(tmp_path: Path) -> None:
    feed = {name: normal(2, 4) for name in ("x",)}
    path = written(branches(), tmp_path / "branches.onnx")
    for one, other in zip(
        run(path, feed, tmp_path),
        run(compacted(branches(), tmp_path), feed, tmp_path),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
