"""Recurrent layers that lost inputs or units are refitted by both of their weights."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.compression.channels.parts import Feed, linear
from tests.models import build, context, normal, opened, run, sqnr
from worker.compression.passes import ChannelPruning

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def stacked(op: str, settings: str = "") -> onnx.ModelProto:
    """A Gemm that feeds a recurrent layer, of which the last state is read."""
    rows = GATES[op] * 16
    weights = linear("in", 6, 20) | linear("out", 16, 5) | {
        "w": normal(1, rows, 20, seed=1, scale=0.2),
        "r": normal(1, rows, 16, seed=2, scale=0.2),
        "b": normal(1, 2 * rows, seed=3, scale=0.1), "first": np.array([0]),
    }  # fmt: skip
    last = "l, h, c" if op == "LSTM" else "l, h"
    text = f"""
    stacked (float[t,n,6] x) => (float[n,5] y) {{
        m = MatMul (x, "in.weight")
        a = Add (m, "in.bias")
        e = Tanh (a)
        [layer] {last.replace("l,", ",")} = {op} <hidden_size = 16{settings}> (e, w, r, b)
        q = Squeeze (h, first)
        [out] y = Gemm (q, "out.weight", "out.bias")
    }}
    """
    return build(text, weights)


def feed(seed: int) -> Feed:
    return {"x": normal(9, 2, 6, seed=seed)}


@pytest.mark.parametrize(
    ("op", "settings"),
    [("LSTM", ""), ("GRU", ", linear_before_reset = 1"), ("GRU", ""), ("RNN", "")],
)
@pytest.mark.parametrize("widths", [{"in.weight": 12}, {"w": 12}])
def test_the_refit_of_a_recurrent_layer_comes_closer(
    op: str, settings: str, widths: dict[str, int], tmp_path: Path
) -> None:
    if "w" in widths:
        widths = {"w": widths["w"] * GATES[op]}

    def closeness(*, refit: bool) -> float:
        pruning = ChannelPruning(widths=widths, refit=refit, criterion="l2")
        feeds = [feed(seed) for seed in range(24)]
        result = pruning.apply(opened(stacked(op, settings)), context(tmp_path, feeds))
        pairs = [
            (
                run(stacked(op, settings), feed(s), tmp_path)[0],
                run(result, feed(s), tmp_path)[0],
            )
            for s in range(90, 100)
        ]
        expected, found = (np.concatenate(side) for side in zip(*pairs, strict=True))
        return sqnr(expected, found)

    assert closeness(refit=True) > closeness(refit=False) + 3
