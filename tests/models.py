"""Tiny ONNX models as text, and what tests need around them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.passes import Context, Target

Feeds = Sequence[Mapping[str, np.ndarray]]


def build(
    text: str, weights: Mapping[str, np.ndarray], *, opset: int = 17, contrib: bool = False
) -> onnx.ModelProto:
    """A graph in the text form of ONNX, with its initializers as arrays."""
    domains = f'"" : {opset}' + (', "com.microsoft" : 1' if contrib else "")
    model = onnx.parser.parse_model(f"<ir_version: 8, opset_import: [{domains}]>\n{text}")
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in weights.items()
    )
    return model


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Seeded float32 noise."""
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def convnet(*, opset: int = 17) -> onnx.ModelProto:
    """Conv, BatchNorm, Relu, a depthwise Conv, a residual Add and a Gemm; input [n,3,8,8]."""
    weights = {
        "conv.weight": normal(8, 3, 3, 3, seed=1, scale=0.4),
        "bn.scale": np.abs(normal(8, seed=2)) + 0.5,
        "bn.bias": normal(8, seed=3),
        "bn.mean": normal(8, seed=4, scale=0.2),
        "bn.var": np.abs(normal(8, seed=5)) + 0.5,
        "depthwise.weight": normal(8, 1, 3, 3, seed=6, scale=0.3),
        "depthwise.bias": normal(8, seed=7, scale=0.1),
        "fc.weight": normal(10, 8, seed=8),
        "fc.bias": normal(10, seed=9),
    }
    text = """
    convnet (float[n,3,8,8] x) => (float[n,10] y) {
        [conv] c = Conv <pads = [1, 1, 1, 1]> (x, "conv.weight")
        [bn] b = BatchNormalization (c, "bn.scale", "bn.bias", "bn.mean", "bn.var")
        [relu] r = Relu (b)
        [depthwise] d = Conv <group = 8, pads = [1, 1, 1, 1]>
            (r, "depthwise.weight", "depthwise.bias")
        [add] a = Add (d, r)
        [pool] p = GlobalAveragePool (a)
        [flatten] f = Flatten (p)
        [fc] y = Gemm <transB = 1> (f, "fc.weight", "fc.bias")
    }
    """
    return build(text, weights, opset=opset)


def branches() -> onnx.ModelProto:
    """A MatMul in each body of an If: no weight is in the main graph; input [n,4]."""
    weights = {
        "w": normal(4, 4, seed=1),
        "v": normal(4, 4, seed=2),
        "zero": np.float32(0).reshape(()),
    }
    text = """
    branches (float[n,4] x) => (float[n,4] y) {
        s = ReduceSum <keepdims = 0> (x)
        c = Greater (s, zero)
        [if] y = If (c) <
            then_branch = then () => (float[n,4] t) { [then_matmul] t = MatMul (x, w) },
            else_branch = otherwise () => (float[n,4] e) { [else_matmul] e = MatMul (x, v) }
        >
    }
    """
    return build(text, weights)


def images(count: int = 8, *, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Feeds for `convnet`."""
    return [{"x": normal(1, 3, 8, 8, seed=seed + index)} for index in range(count)]


def written(model: onnx.ModelProto, path: Path) -> Path:
    """The path, with the model written to it."""
    onnx.save(model, path)
    return path


def opened(model: onnx.ModelProto) -> ir.Model:
    """A model as a pass is given it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # the tensors of an ir.Model are those of its proto
    opened: ir.Model = ir.from_proto(copy)
    return opened


def context(workdir: Path, feeds: Feeds, *, target: Target | None = None) -> Context:
    """What a pass may use, with the feeds as calibration samples."""
    return Context(
        workdir=workdir,
        calibration=CalibrationSet([dict(feed) for feed in feeds], "calibration"),
        target=target or Target(),
        seed=0,
        progress=lambda share, message: None,
        measure=lambda path: None,
    )


def run(
    model: ir.Model | onnx.ModelProto | Path, feed: Mapping[str, np.ndarray], folder: Path
) -> list[np.ndarray]:
    """Outputs of one inference in ONNX Runtime."""
    path = model if isinstance(model, Path) else folder / "run.onnx"
    if isinstance(model, onnx.ModelProto):
        onnx.save(model, path)
    elif isinstance(model, ir.Model):
        graph.save(model, path)
    return [np.asarray(output) for output in graph.session(path).run(None, dict(feed))]


def sqnr(reference: np.ndarray, actual: np.ndarray) -> float:
    """Signal to noise, in dB."""
    signal = np.square(reference.astype(np.float64)).mean()
    noise = np.square(reference.astype(np.float64) - actual).mean()
    return float(10 * np.log10(signal / max(noise, 1e-30)))
