"""Small graphs, one for each way in which channels hang together."""

import numpy as np
import onnx

from tests.models import build, normal

Feed = dict[str, np.ndarray]
PADDED = "pads = [1, 1, 1, 1]"


def image(seed: int = 0, *, channels: int = 3, side: int = 8) -> Feed:
    return {"x": normal(1, channels, side, side, seed=seed)}


def conv(name: str, outputs: int, inputs: int, side: int = 3) -> dict[str, np.ndarray]:
    """Weight and bias of a convolution."""
    seed = sum(name.encode())
    scale = (2 / (inputs * side * side)) ** 0.5
    return {
        f"{name}.weight": normal(outputs, inputs, side, side, seed=seed, scale=scale),
        f"{name}.bias": normal(outputs, seed=seed + 1, scale=0.1),
    }


def linear(name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    seed = sum(name.encode())
    return {
        f"{name}.weight": normal(inputs, outputs, seed=seed, scale=inputs**-0.5),
        f"{name}.bias": normal(outputs, seed=seed + 1, scale=0.1),
    }


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


def sequence(seed: int = 0, *, length: int = 7, batch: int = 2, width: int = 32) -> Feed:
    return {"x": normal(batch, length, width, seed=seed)}


def steps(seed: int = 0) -> Feed:
    return {"x": normal(9, 2, 6, seed=seed)}


GRAPHS = {
    "residual": (residual, image),
    "dense": (dense, image),
    "depthwise": (depthwise, image),
    "grouped": (grouped, image),
    "squeeze_excite": (squeeze_excite, image),
    "unet": (unet, image),
    "transformer": (transformer, sequence),
    "lstm": (lstm, steps),
    "detector": (detector, image),
}


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


GRAPHS |= {
    "indexing": (indexing, image),
    "flattened": (flattened, image),
    "shuffled": (shuffled, image),
}
# These lose less than 30 %: most of them is pinned.
PINNED = {"softmaxed": (softmaxed, image)}
