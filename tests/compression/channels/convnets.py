"""Convolutional graphs, one for each way in which channels hang together."""

import numpy as np
import onnx

from tests.compression.channels.parts import PADDED, conv, linear
from tests.models import build, normal


def residual() -> onnx.ModelProto:
    """Two blocks: their sums tie the stem to every block's last layer."""
    weights = conv("stem", 16, 3) | conv("a1", 16, 16) | conv("a2", 16, 16)
    weights |= conv("b1", 16, 16) | conv("b2", 16, 16) | linear("fc", 16, 5)
    text = f"""
    residual (float[n,3,8,8] x) => (float[n,5] y) {{
        [stem] s = Conv <{PADDED}> (x, "stem.weight", "stem.bias")
        s1 = Relu (s)
        [a1] a = Conv <{PADDED}> (s1, "a1.weight", "a1.bias")
        a1r = Relu (a)
        [a2] a2o = Conv <{PADDED}> (a1r, "a2.weight", "a2.bias")
        as = Add (a2o, s1)
        ar = Relu (as)
        [b1] b = Conv <{PADDED}> (ar, "b1.weight", "b1.bias")
        b1r = Relu (b)
        [b2] b2o = Conv <{PADDED}> (b1r, "b2.weight", "b2.bias")
        bs = Add (ar, b2o)
        br = Relu (bs)
        p = GlobalAveragePool (br)
        f = Flatten (p)
        [fc] y = Gemm (f, "fc.weight", "fc.bias")
    }}
    """
    return build(text, weights)


def dense() -> onnx.ModelProto:
    """Each layer reads all before it, joined by Concat; two outputs are split again."""
    weights = conv("stem", 8, 3) | conv("d1", 8, 8) | conv("d2", 8, 16) | conv("last", 12, 24)
    weights |= conv("left", 6, 6) | conv("right", 6, 6) | linear("fc", 12, 5)
    text = f"""
    dense (float[n,3,8,8] x) => (float[n,5] y) {{
        [stem] s = Conv <{PADDED}> (x, "stem.weight", "stem.bias")
        sr = Relu (s)
        [d1] a = Conv <{PADDED}> (sr, "d1.weight", "d1.bias")
        ar = Relu (a)
        c1 = Concat <axis = 1> (sr, ar)
        [d2] b = Conv <{PADDED}> (c1, "d2.weight", "d2.bias")
        br = Relu (b)
        c2 = Concat <axis = 1> (c1, br)
        [last] l = Conv <{PADDED}> (c2, "last.weight", "last.bias")
        lr = Relu (l)
        p, q = Split <axis = 1> (lr, halves)
        [left] pl = Conv <{PADDED}> (p, "left.weight", "left.bias")
        [right] qr = Conv <{PADDED}> (q, "right.weight", "right.bias")
        j = Concat <axis = 1> (pl, qr)
        jr = Relu (j)
        g = GlobalAveragePool (jr)
        f = Flatten (g)
        [fc] y = Gemm (f, "fc.weight", "fc.bias")
    }}
    """
    return build(text, weights | {"halves": np.array([6, 6])})


def depthwise() -> onnx.ModelProto:
    """An inverted bottleneck: expand, depthwise, project; one depthwise doubles its inputs."""
    weights = conv("expand", 16, 3, 1) | conv("project", 8, 32, 1) | linear("fc", 8, 5)
    weights |= {
        "dw.weight": normal(16, 1, 3, 3, seed=1, scale=0.5),
        "dw.bias": normal(16, seed=2, scale=0.1),
        "double.weight": normal(32, 1, 3, 3, seed=3, scale=0.5),
    }
    text = f"""
    depthwise (float[n,3,8,8] x) => (float[n,5] y) {{
        [expand] e = Conv (x, "expand.weight", "expand.bias")
        e6 = Clip (e, low, high)
        [dw] d = Conv <group = 16, {PADDED}> (e6, "dw.weight", "dw.bias")
        dr = Relu (d)
        [double] m = Conv <group = 16, {PADDED}> (dr, "double.weight")
        mr = Relu (m)
        [project] q = Conv (mr, "project.weight", "project.bias")
        qr = Relu (q)
        g = GlobalAveragePool (qr)
        f = Flatten (g)
        [fc] y = Gemm (f, "fc.weight", "fc.bias")
    }}
    """
    limits = {"low": np.float32(0).reshape(()), "high": np.float32(6).reshape(())}
    return build(text, weights | limits)


def grouped() -> onnx.ModelProto:
    """Convolutions of two groups of many channels, and of many groups of two."""
    weights = conv("stem", 16, 3) | conv("two", 16, 8) | conv("many", 16, 2)
    weights |= conv("last", 8, 16) | linear("fc", 8, 5)
    text = f"""
    grouped (float[n,3,8,8] x) => (float[n,5] y) {{
        [stem] s = Conv <{PADDED}> (x, "stem.weight", "stem.bias")
        sr = Relu (s)
        [two] t = Conv <group = 2, {PADDED}> (sr, "two.weight", "two.bias")
        tr = Relu (t)
        [many] m = Conv <group = 8, {PADDED}> (tr, "many.weight", "many.bias")
        mr = Relu (m)
        [last] l = Conv <{PADDED}> (mr, "last.weight", "last.bias")
        lr = Relu (l)
        g = GlobalAveragePool (lr)
        f = Flatten (g)
        [fc] y = Gemm (f, "fc.weight", "fc.bias")
    }}
    """
    return build(text, weights)


def squeeze_excite() -> onnx.ModelProto:
    """A gate computed from the channels that it multiplies."""
    weights = conv("stem", 16, 3) | conv("down", 6, 16, 1) | conv("up", 16, 6, 1)
    weights |= conv("last", 8, 16) | linear("fc", 8, 5)
    text = f"""
    gated (float[n,3,8,8] x) => (float[n,5] y) {{
        [stem] s = Conv <{PADDED}> (x, "stem.weight", "stem.bias")
        sr = Relu (s)
        p = ReduceMean <axes = [2, 3], keepdims = 1> (sr)
        [down] d = Conv (p, "down.weight", "down.bias")
        dr = Relu (d)
        [up] u = Conv (dr, "up.weight", "up.bias")
        gate = Sigmoid (u)
        m = Mul (sr, gate)
        [last] l = Conv <{PADDED}> (m, "last.weight", "last.bias")
        lr = Relu (l)
        g = GlobalAveragePool (lr)
        f = Flatten (g)
        [fc] y = Gemm (f, "fc.weight", "fc.bias")
    }}
    """
    return build(text, weights)


def unet() -> onnx.ModelProto:
    """Down and up again: ConvTranspose and Resize, each joined with a skip."""
    weights = conv("e1", 8, 3) | conv("e2", 16, 8) | conv("e3", 16, 16)
    weights |= conv("u2", 8, 16) | conv("u1", 8, 16) | conv("head", 2, 16)
    weights["up.weight"] = normal(16, 8, 2, 2, seed=5, scale=0.3)
    weights["up.bias"] = normal(8, seed=6, scale=0.1)
    weights["scales"] = np.array([1, 1, 2, 2], np.float32)
    weights["none"] = np.zeros(0, np.float32)
    text = f"""
    unet (float[n,3,8,8] x) => (float[n,2,8,8] y) {{
        [e1] a = Conv <{PADDED}> (x, "e1.weight", "e1.bias")
        ar = Relu (a)
        ap = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (ar)
        [e2] b = Conv <{PADDED}> (ap, "e2.weight", "e2.bias")
        br = Relu (b)
        bp = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (br)
        [e3] c = Conv <{PADDED}> (bp, "e3.weight", "e3.bias")
        cr = Relu (c)
        [up] t = ConvTranspose <strides = [2, 2]> (cr, "up.weight", "up.bias")
        tr = Relu (t)
        [u2] k = Conv <{PADDED}> (br, "u2.weight", "u2.bias")
        j = Concat <axis = 1> (tr, k)
        [u1] v = Conv <{PADDED}> (j, "u1.weight", "u1.bias")
        vr = Relu (v)
        w = Resize (vr, none, scales)
        z = Concat <axis = 1> (w, ar)
        [head] y = Conv <{PADDED}> (z, "head.weight", "head.bias")
    }}
    """
    return build(text, weights)


def detector() -> onnx.ModelProto:
    """A head of two branches over two scales: boxes and scores, reshaped and joined."""
    weights = conv("stem", 16, 3) | conv("deep", 16, 16) | conv("neck", 16, 32)
    weights |= conv("box", 8, 16, 1) | conv("cls", 6, 16, 1)
    weights |= {
        "boxes": np.array([0, 4, -1]),
        "scores": np.array([0, 3, -1]),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "none": np.zeros(0, np.float32),
    }
    text = f"""
    detector (float[n,3,8,8] x) => (float[n,7,m] y) {{
        [stem] s = Conv <{PADDED}> (x, "stem.weight", "stem.bias")
        sg = Sigmoid (s)
        sr = Mul (s, sg)
        [deep] d = Conv <strides = [2, 2], {PADDED}> (sr, "deep.weight", "deep.bias")
        dr = Relu (d)
        du = Resize (dr, none, scales)
        c = Concat <axis = 1> (sr, du)
        [neck] n0 = Conv <{PADDED}> (c, "neck.weight", "neck.bias")
        nr = Relu (n0)
        [box] b = Conv (nr, "box.weight", "box.bias")
        [cls] k = Conv (nr, "cls.weight", "cls.bias")
        bf = Reshape (b, boxes)
        kf = Reshape (k, scores)
        ks = Sigmoid (kf)
        y = Concat <axis = 1> (bf, ks)
    }}
    """
    return build(text, weights)
