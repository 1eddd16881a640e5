"""Small graphs whose operators share weights and tensors, or have something between them."""

from collections.abc import Callable

import numpy as np

from tests.compression.quantization.odd_graphs import Odd, odd
from tests.models import normal


def read_by_conv_and_matmul() -> Odd:
    """Both in a row of their own, with the Conv first and last: each quantizer names the Q."""
    text = """
    g (float[n,8,8,1] x) => (float[n,8,8,1] y, float[n,8,8,1] z) {
        h = MatMul (v, x)
        y = Conv (x, w)
        z = Conv (h, w)
    }
    """
    return odd(text, {"w": normal(8, 8, 1, 1), "v": normal(8, 8, seed=1)}, 2, 8, 8, 1)


def weight_of_conv_and_matmul() -> Odd:
    text = """
    g (float[n,8,6,6] x) => (float[n,8,6,6] y, float[n,8] z) {
        c = Conv (x, w)
        r = Relu (c)
        p = GlobalAveragePool (r)
        f = Flatten (p)
        flat = Reshape (w, matrix)
        q = MatMul (f, flat)
        turned = Transpose <perm = [1, 0]> (flat)
        z = Gemm (q, turned, b)
        y = Conv (r, w, b)
    }
    """
    held = {"w": normal(8, 8, 1, 1), "b": normal(8), "matrix": np.array([8, 8])}
    return odd(text, held, 2, 8, 6, 6)


def between_convolutions() -> Odd:
    text = """
    g (float[n,3,8,8] x) => (float[n,4,h,w] y) {
        a = Conv (x, w, b)
        p = Pad <mode = "constant"> (a, pads, one)
        r = Resize <mode = "linear", coordinate_transformation_mode = "align_corners">
            (p, , scales)
        c = Clip (r, low, high)
        q = Pad <mode = "reflect"> (c, pads)
        y = Conv (q, v)
    }
    """
    held = {
        "w": normal(4, 3, 3, 3, scale=0.3),
        "b": normal(4),
        "v": normal(4, 4, 3, 3, seed=3, scale=0.3),
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
        "one": np.float32(1),
        "scales": np.array([1, 1, 1.5, 1.5], np.float32),
        "low": np.float32(0.3),
        "high": np.float32(5),
    }
    return odd(text, held, 2, 3, 8, 8)


def sequence() -> Odd:
    text = """
    g (float[n,16] x) => (float[n,16] y) {
        a = MatMul (x, w)
        b = MatMul (a, w)
        s = SequenceConstruct (a, b)
        l = SequenceAt (s, second)
        o = Optional (l)
        e = OptionalGetElement (o)
        y = MatMul (e, w)
    }
    """
    return odd(text, {"w": normal(16, 16, scale=0.3), "second": np.array(1)}, 4, 16)


def same_names_in_bodies() -> Odd:
    body = "body () => (float[n,16] t) { k = MatMul (q, w)  t = Relu (k) }"
    text = f"""
    g (float[n,16] x) => (float[n,16] y) {{
        s = ReduceSum <keepdims = 0> (x)
        c = Greater (s, zero)
        q = MatMul (x, w)
        y = If (c) <then_branch = {body}, else_branch = {body.replace("Relu", "Tanh")}>
    }}
    """
    return odd(text, {"w": normal(16, 16, scale=0.3), "zero": np.float32(0)}, 4, 16)


SHARING: dict[str, Callable[[], Odd]] = {
    "a tensor read by Conv and MatMul": read_by_conv_and_matmul,
    "a weight of Conv and MatMul": weight_of_conv_and_matmul,
    "Pad, Resize and Clip between": between_convolutions,
    "sequences and optionals": sequence,
    "bodies with the same names": same_names_in_bodies,
}
