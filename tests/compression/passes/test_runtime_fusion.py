"""ONNX Runtime's own fused graph, as a file."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import build, context, convnet, images, normal, opened, run, written
from worker.compression import graph
from worker.compression.errors import CompressionWarning
from worker.compression.passes import RuntimeFusion


def fused(model: onnx.ModelProto, tmp_path: Path) -> Path:
    path = tmp_path / "fused.onnx"
    graph.save(RuntimeFusion().apply(opened(model), context(tmp_path, images(8))), path)
    return path


def test_what_only_onnx_runtime_has_is_named(tmp_path: Path) -> None:
    with pytest.warns(CompressionWarning, match="FusedConv") as heard:
        path = fused(convnet(), tmp_path)
    assert [one.message.code for one in heard] == ["onnxruntime_only"]
    ops = {node.op_type for node in onnx.load(path).graph.node}
    assert "FusedConv" in ops
    assert "Relu" not in ops


@pytest.mark.filterwarnings("ignore::worker.compression.errors.CompressionWarning")
def test_it_computes_the_same_and_ties_itself_to_no_cpu(tmp_path: Path) -> None:
    x = normal(2, 3, 8, 8)
    (before,) = run(written(convnet(), tmp_path / "original.onnx"), {"x": x}, tmp_path)
    path = fused(convnet(), tmp_path)
    (after,) = run(path, {"x": x}, tmp_path)
    np.testing.assert_allclose(before, after, rtol=1e-4, atol=1e-5)
    domains = {one.domain for one in onnx.load(path).opset_import}
    assert domains == {"", "com.microsoft"}


def test_a_graph_without_anything_to_fuse_needs_no_warning(tmp_path: Path) -> None:
    model = build("g (float[n,4] x) => (float[n,4] y) { y = Exp(x) }", {})
    path = fused(model, tmp_path)
    assert {one.domain for one in onnx.load(path).opset_import} == {""}
