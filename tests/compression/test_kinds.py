"""Kinds of outputs on graphs that look alike and are not."""

import numpy as np
import pytest

from tests.models import build, normal, opened
from worker.compression.fidelity import output_kinds

K, W = {"k": normal(10, 8, 1, 1)}, {"w": normal(8, 5)}
AXES = {"axes": np.array([2, 3])}
# Input, output, nodes, weights, kind of the output.
CASES = {
    "classes by a Conv behind the last pool": (
        "float[n,8,4,4] x",
        "float[n,10] y",
        "p = GlobalAveragePool (x) c = Conv (p, k) y = Flatten (c)",
        K,
        "class",
    ),
    "the same with a squeeze": (
        "float[n,8,4,4] x",
        "float[n,10] y",
        "p = ReduceMean <axes = [2, 3]> (x) r = Relu (p) c = Conv (r, k) y = Squeeze (c, axes)",
        K | AXES,
        "class",
    ),
    "a flattened picture": (
        "float[n,8,4,4] x",
        "float[n,160] y",
        "c = Conv (x, k) y = Flatten (c)",
        K,
        "value",
    ),
    "the logarithm of a softmax": (
        "float[n,8] x",
        "float[n,8] y",
        "s = Softmax (x) y = Log (s)",
        {},
        "class",
    ),
    "log-probabilities written out": (
        "float[n,8] x",
        "float[n,8] y",
        "s = ReduceLogSumExp <axes = [1]> (x) y = Sub (x, s)",
        {},
        "class",
    ),
    "CTC with time first": (
        "float[n,t,8] x",
        "float[t,n,8] y",
        "s = LogSoftmax <axis = 2> (x) y = Transpose <perm = [1, 0, 2]> (s)",
        {},
        "class",
    ),
    "classes moved to the end": (
        "float[n,8,t] x",
        "float[n,t,8] y",
        "s = Softmax <axis = 1> (x) y = Transpose <perm = [0, 2, 1]> (s)",
        {},
        "class",
    ),
    "classes moved away from the end": (
        "float[n,t,8] x",
        "float[n,8,t] y",
        "s = Softmax <axis = 2> (x) y = Transpose <perm = [0, 2, 1]> (s)",
        {},
        "value",
    ),
    "clipped probabilities": (
        "float[n,8] x",
        "float[n,8] y",
        "s = Softmax (x) y = Clip (s, low)",
        {"low": np.float32(1e-7)},
        "class",
    ),
    "several labels at once": (
        "float[n,8] x",
        "float[n,5] y",
        "m = MatMul (x, w) y = Sigmoid (m)",
        W,
        "value",
    ),
    "boxes by their name": (
        "float[n,9,8] x",
        "float[n,9,5] pred_boxes",
        "pred_boxes = MatMul (x, w)",
        W,
        "value",
    ),
    "classes beside boxes": (
        "float[n,9,8] x",
        "float[n,9,5] pred_logits",
        "pred_logits = MatMul (x, w)",
        W,
        "class",
    ),
    "an embedding by its name": (
        "float[n,8] x",
        "float[n,32] image_embeds",
        "image_embeds = MatMul (x, w)",
        {"w": normal(8, 32)},
        "embedding",
    ),
    "the next token": (
        "float[n,t,8] x",
        "float[n,5] y",
        "m = MatMul (x, w) y = Gather <axis = 1> (m, last)",
        W | {"last": np.array(-1)},
        "class",
    ),
    "softmax inside": (
        "float[n,4,8] x",
        "float[n,4,8] y",
        "s = Softmax (x) y = Relu (s)",
        {},
        "value",
    ),
    "two heads in one": (
        "float[n,8] x",
        "float[n,13] y",
        "a = MatMul (x, w) y = Concat <axis = 1> (a, x)",
        W,
        "value",
    ),
    "logits in half precision": (
        "float[n,8] x",
        "float16[n,5] y",
        "m = MatMul (x, w) y = Cast <to = 10> (m)",
        W,
        "class",
    ),
    "yes or no": (
        "float[n,8] x",
        "bool[n,8] y",
        "y = Greater (x, zero)",
        {"zero": np.float32(0)},
        "class",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_kind_follows_from_what_made_the_output(case: str) -> None:
    given, made, nodes, weights, kind = CASES[case]
    model = build(f"m ({given}) => ({made}) {{ {nodes} }}", weights)
    assert list(output_kinds(opened(model), {}).values()) == [kind]
