"""What was kept float is float in ONNX Runtime too, at its default optimization."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import build, context, normal, opened, run, sqnr
from worker.compression import graph
from worker.compression.benchmark import int8_share
from worker.compression.passes import StaticQuantization
from worker.compression.quantization import Format

FEEDS = [{"x": normal(1, 8, 12, 12, seed=seed)} for seed in range(8)]
LAYERS = {
    "Conv": 'Conv <pads = [1, 1, 1, 1]> (r, "second.weight", "second.bias")',
    "depthwise Conv": 'Conv <group = 8> (r, "depthwise.weight", "second.bias")',
    "ConvTranspose": 'ConvTranspose (r, "transposed.weight", "second.bias")',
}


def three_layers(second: str) -> onnx.ModelProto:
    """Two layers around one that only one scale for all of its channels would spoil.

    One channel's weights are a hundred times the others'; a Clip hides that from what follows.
    """
    uneven = np.ones((8, 1, 1, 1), np.float32)
    uneven[0] = 100
    weights = {
        "first.weight": normal(8, 8, 3, 3, seed=1, scale=0.2),
        "second.weight": normal(8, 8, 3, 3, seed=2, scale=0.2) * uneven,
        "transposed.weight": normal(8, 8, 3, 3, seed=2, scale=0.2) * uneven.reshape(1, 8, 1, 1),
        "depthwise.weight": normal(8, 1, 3, 3, seed=3) * uneven,
        "second.bias": normal(8, seed=4, scale=0.01),
        "low": np.float32(0),
        "high": np.float32(6),
        "last.weight": normal(8, 8, 1, 1, seed=5),
    }
    text = f"""
    net (float[1,8,12,12] x) => (float y) {{
        [first] c = Conv <pads = [1, 1, 1, 1]> (x, "first.weight")
        [relu] r = Relu (c)
        [second] s = {second}
        [clip] t = Clip (s, low, high)
        [last] y = Conv (t, "last.weight")
    }}
    """
    return build(text, weights)


@pytest.mark.parametrize("format_", ["qdq", "qoperator"])
@pytest.mark.parametrize("second", LAYERS.values(), ids=LAYERS)
def test_a_layer_kept_float_loses_nothing_to_the_runtime(
    second: str, format_: Format, tmp_path: Path
) -> None:
    model = three_layers(second)
    pass_ = StaticQuantization(keep_float=["second"], format=format_)
    result = pass_.apply(opened(model), context(tmp_path, FEEDS))
    path = tmp_path / "result.onnx"
    graph.save(result, path)
    expected = [run(model, feed, tmp_path)[0] for feed in FEEDS]
    actual = [graph.session(path).run(None, feed)[0] for feed in FEEDS]
    assert sqnr(np.stack(expected), np.stack(actual)) > 20
    assert int8_share(path, FEEDS[0]) > 0
