"""Graphs whose channels are sliced, gathered, flattened, dealt out or compared."""

import numpy as np
import onnx

from tests.compression.channels.parts import PADDED, conv, linear
from tests.models import build, normal


def indexing() -> onnx.ModelProto:
    """Channels sliced, gathered, padded and shuffled on their way."""
    weights = conv("stem", 12, 3) | conv("last", 8, 12) | conv("side", 16, 6)
    weights |= conv("far", 4, 7) | linear("fc", 12, 5)
    weights |= {
        "start": np.array([2]),
        "end": np.array([8]),
        "axis": np.array([1]),
        "picked": np.array([11, 0, 5, 7, 6, 1, 2, 3, 4, 8, 9, 10]),
        "pads": np.array([0, 2, 0, 0, 0, 1, 0, 0]),
        "slope": np.abs(normal(12, 1, 1, seed=3)),
        "scale": np.abs(normal(8, seed=4)) + 0.5,
        "shift": normal(8, seed=5),
        "mean": normal(8, seed=6, scale=0.1),
        "variance": np.abs(normal(8, seed=7)) + 0.5,
    }
    text = f"""
    indexing (float[n,3,8,8] x) => (float[n,5] y) {{
        [stem] s = Conv <{PADDED}> (x, "stem.weight", "stem.bias")
        sr = PRelu (s, slope)
        [slice] part = Slice (sr, start, end, axis)
        [side] i = Conv <{PADDED}> (part, "side.weight", "side.bias")
        d = DepthToSpace <blocksize = 2> (i)
        dp = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (d)
        padded = Pad (dp, pads)
        [far] v = Conv <{PADDED}> (padded, "far.weight", "far.bias")
        [gather] g = Gather <axis = 1> (sr, picked)
        [last] l = Conv <{PADDED}> (g, "last.weight", "last.bias")
        b = InstanceNormalization (l, scale, shift)
        bn = BatchNormalization (b, scale, shift, mean, variance)
        br = Relu (bn)
        j = Concat <axis = 1> (br, v)
        q = GlobalAveragePool (j)
        f = Flatten (q)
        [fc] y = Gemm (f, "fc.weight", "fc.bias")
    }}
    """
    return build(text, weights)


def flattened() -> onnx.ModelProto:
    """Channels and space merged before a Gemm with a transposed weight."""
    weights = conv("stem", 8, 3) | conv("two", 8, 8)
    weights["fc.weight"] = normal(5, 8 * 16, seed=9, scale=0.1)
    text = f"""
    flattened (float[n,3,8,8] x) => (float[n,5] y) {{
        [stem] s = Conv <strides = [2, 2], {PADDED}> (x, "stem.weight", "stem.bias")
        sr = Relu (s)
        [two] t = Conv <{PADDED}> (sr, "two.weight", "two.bias")
        tr = Relu (t)
        f = Flatten (tr)
        [fc] y = Gemm <transB = 1> (f, "fc.weight")
    }}
    """
    return build(text, weights)


def shuffled() -> onnx.ModelProto:
    """Channels dealt out to two groups between grouped convolutions, as ShuffleNet does."""
    weights = conv("stem", 16, 3) | conv("a", 16, 8, 1) | conv("b", 16, 8, 1)
    weights |= linear("fc", 16, 5)
    weights |= {"apart": np.array([0, 2, 8, 8, 8]), "together": np.array([0, 16, 8, 8])}
    text = f"""
    shuffled (float[n,3,8,8] x) => (float[n,5] y) {{
        [stem] s = Conv <{PADDED}> (x, "stem.weight", "stem.bias")
        sr = Relu (s)
        [a] a = Conv <group = 2> (sr, "a.weight", "a.bias")
        r = Reshape (a, apart)
        t = Transpose <perm = [0, 2, 1, 3, 4]> (r)
        u = Reshape (t, together)
        [b] b = Conv <group = 2> (u, "b.weight", "b.bias")
        br = Relu (b)
        g = GlobalAveragePool (br)
        f = Flatten (g)
        [fc] y = Gemm (f, "fc.weight", "fc.bias")
    }}
    """
    return build(text, weights)


def softmaxed() -> onnx.ModelProto:
    """Channels compared with each other: those stay, the next ones may go."""
    weights = conv("stem", 8, 3) | conv("last", 12, 8) | linear("fc", 12, 5)
    text = f"""
    softmaxed (float[n,3,8,8] x) => (float[n,5] y) {{
        [stem] s = Conv <{PADDED}> (x, "stem.weight", "stem.bias")
        m = Softmax <axis = 1> (s)
        [last] l = Conv <{PADDED}> (m, "last.weight", "last.bias")
        lr = Relu (l)
        g = GlobalAveragePool (lr)
        f = Flatten (g)
        [fc] y = Gemm (f, "fc.weight", "fc.bias")
    }}
    """
    return build(text, weights)
