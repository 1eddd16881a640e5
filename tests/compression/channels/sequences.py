"""Graphs over steps: attention and recurrence."""

import numpy as np
import onnx

from tests.compression.channels.parts import linear
from tests.models import build, normal


def transformer() -> onnx.ModelProto:
    """One encoder layer: four heads of eight, feed-forward with GELU, LayerNorm."""
    weights: dict[str, np.ndarray] = {}
    for name in ("q", "k", "v", "o"):
        weights |= linear(name, 32, 32)
    weights |= linear("up", 32, 64) | linear("down", 64, 32) | linear("fc", 32, 5)
    weights |= {
        "n1.scale": np.ones(32, np.float32),
        "n2.scale": np.ones(32, np.float32),
        "heads": np.array([0, 0, 4, 8]),
        "flat": np.array([0, 0, -1]),
        "root": np.float32(8**0.5).reshape(()),
        "two": np.float32(2**0.5).reshape(()),
        "one": np.float32(1).reshape(()),
        "half": np.float32(0.5).reshape(()),
    }
    text = """
    transformer (float[n,t,32] x) => (float[n,t,5] y) {
        [q] qm = MatMul (x, "q.weight")
        qa = Add (qm, "q.bias")
        [k] km = MatMul (x, "k.weight")
        ka = Add (km, "k.bias")
        [v] vm = MatMul (x, "v.weight")
        va = Add (vm, "v.bias")
        qh = Reshape (qa, heads)
        kh = Reshape (ka, heads)
        vh = Reshape (va, heads)
        qt = Transpose <perm = [0, 2, 1, 3]> (qh)
        kt = Transpose <perm = [0, 2, 3, 1]> (kh)
        vt = Transpose <perm = [0, 2, 1, 3]> (vh)
        s = MatMul (qt, kt)
        sd = Div (s, root)
        sm = Softmax <axis = -1> (sd)
        c = MatMul (sm, vt)
        ct = Transpose <perm = [0, 2, 1, 3]> (c)
        cf = Reshape (ct, flat)
        [o] om = MatMul (cf, "o.weight")
        oa = Add (om, "o.bias")
        r1 = Add (oa, x)
        l1 = LayerNormalization <axis = -1> (r1, "n1.scale")
        [up] um = MatMul (l1, "up.weight")
        ua = Add (um, "up.bias")
        ud = Div (ua, two)
        ue = Erf (ud)
        u1 = Add (ue, one)
        uu = Mul (ua, u1)
        ug = Mul (uu, half)
        [down] dm = MatMul (ug, "down.weight")
        da = Add (dm, "down.bias")
        r2 = Add (da, l1)
        l2 = LayerNormalization <axis = -1> (r2, "n2.scale")
        [fc] ym = MatMul (l2, "fc.weight")
        y = Add (ym, "fc.bias")
    }
    """
    return build(text, weights)


def fused() -> onnx.ModelProto:
    """Query, key and value of one product, told apart by a shape that is computed."""
    weights = linear("qkv", 32, 144) | linear("o", 48, 32) | linear("up", 32, 64)
    weights |= linear("fc", 64, 5) | {
        "none": np.array([0]),
        "two": np.array([2]),
        "tail": np.array([3, 4, 12]),
        "rest": np.array([-1]),
        "q.at": np.int64(0).reshape(()),
        "k.at": np.int64(1).reshape(()),
        "v.at": np.int64(2).reshape(()),
        "scale": np.float32(0.3).reshape(()),
    }
    text = """
    fused (float[n,t,32] x) => (float[n,t,5] y) {
        size = Shape (x)
        rows = Slice (size, none, two)
        parts = Concat <axis = 0> (rows, tail)
        flat = Concat <axis = 0> (rows, rest)
        m = MatMul (x, "qkv.weight")
        a = Add (m, "qkv.bias")
        r = Reshape (a, parts)
        t0 = Transpose <perm = [2, 0, 3, 1, 4]> (r)
        q = Gather <axis = 0> (t0, "q.at")
        k = Gather <axis = 0> (t0, "k.at")
        v = Gather <axis = 0> (t0, "v.at")
        kt = Transpose <perm = [0, 1, 3, 2]> (k)
        s = MatMul (q, kt)
        sc = Mul (s, scale)
        sm = Softmax (sc)
        c = MatMul (sm, v)
        ct = Transpose <perm = [0, 2, 1, 3]> (c)
        cf = Reshape (ct, flat)
        om = MatMul (cf, "o.weight")
        oa = Add (om, "o.bias")
        res = Add (oa, x)
        um = MatMul (res, "up.weight")
        ua = Add (um, "up.bias")
        ur = Relu (ua)
        ym = MatMul (ur, "fc.weight")
        y = Add (ym, "fc.bias")
    }
    """
    return build(text, weights)


def lstm() -> onnx.ModelProto:
    """A bidirectional LSTM and a GRU on top of each other."""
    weights = linear("fc", 12, 5) | {
        "l.w": normal(2, 64, 6, seed=1, scale=0.4),
        "l.r": normal(2, 64, 16, seed=2, scale=0.3),
        "l.b": normal(2, 128, seed=3, scale=0.1),
        "g.w": normal(1, 36, 32, seed=4, scale=0.2),
        "g.r": normal(1, 36, 12, seed=5, scale=0.3),
        "g.b": normal(1, 72, seed=6, scale=0.1),
        "flat": np.array([0, 0, -1]),
        "direction": np.array([1]),
    }
    text = """
    recurrent (float[t,n,6] x) => (float[t,n,5] y) {
        [lstm] l = LSTM <hidden_size = 16, direction = "bidirectional">
            (x, "l.w", "l.r", "l.b")
        lt = Transpose <perm = [0, 2, 1, 3]> (l)
        lf = Reshape (lt, flat)
        [gru] g = GRU <hidden_size = 12, linear_before_reset = 1> (lf, "g.w", "g.r", "g.b")
        gs = Squeeze (g, direction)
        [fc] m = MatMul (gs, "fc.weight")
        y = Add (m, "fc.bias")
    }
    """
    return build(text, weights)
