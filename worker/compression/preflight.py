"""What can be expected of a model on this machine, before anything is tried on it.

Estimates, each named as one: from ONNX Runtime's profile of one inference, and from how much
faster this CPU's int8 kernels are than its float ones on two small layers.
"""

import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from pydantic import BaseModel, ConfigDict, Field

from worker.compression import graph
from worker.compression.benchmark import profile

WANTED_SAMPLES = 128
"""Fewer leave the report's interval wide, and ranges to chance."""
_FAMILY = {"Conv": "Conv", "Gemm": "MatMul", "MatMul": "MatMul"}
_ROUNDS = 15
# Megabytes of a process with onnxruntime and numpy, and of activations held at a time.
_PROCESS_MB, _ACTIVATIONS_MB = 180, 200
# Candidates of a search, the float inferences that one costs for each sample, and its seconds
# of timing; then the seconds of the report.
_CANDIDATES, _INFERENCES, _GLANCE, _REPORT = 10, 1.5, 2.0, 20.0

# A job may have been stopped for a while: that says nothing of the rest of it.
_MOST_SLOWDOWN = 5.0


class Preflight(BaseModel):
    """Expectations, to be compared with what comes out."""

    model_config = ConfigDict(frozen=True)

    latency_ms: float = Field(description="one inference here, by the profile")
    int8_time_share: float = Field(description="part of it that int8 kernels can reach")
    expected_speedup: float = Field(description="if all of that part becomes int8")
    kernel_speedup: dict[str, float] = Field(description="int8 over float on this CPU, by op")
    peak_memory_bytes: int = Field(description="of an automatic job")
    seconds: float = Field(description="of an automatic job, within its budget")
    samples: int = Field(description="calibration samples that are there")
    samples_wanted: int
    sentence: str


def preflight(
    path: Path,
    feed: Mapping[str, np.ndarray],
    *,
    samples: int,
    time_budget_s: float = 240,
    threads: int = 1,
) -> Preflight:
    """Profile one inference of the model and say what can be expected.

    Raises:
        Exception: whatever ONNX Runtime raises where the model does not run on this feed.
    """
    kernels = profile(path, feed, threads=threads)
    total = sum(kernel.ms for kernel in kernels) or 1e-6
    reached = _reachable(path)
    spent = {"Conv": 0.0, "MatMul": 0.0}
    for kernel in kernels:
        if kernel.node in reached:
            spent[reached[kernel.node]] += kernel.ms
    factors = kernel_speedup()
    after = total - sum(spent.values()) + sum(ms / factors[op] for op, ms in spent.items())
    share, speedup = sum(spent.values()) / total, total / after
    return Preflight(
        latency_ms=round(total, 4),
        int8_time_share=round(share, 4),
        expected_speedup=round(speedup, 2),
        kernel_speedup=factors,
        peak_memory_bytes=_peak_memory(path),
        seconds=_seconds(total, max(samples, 16), time_budget_s),
        samples=samples,
        samples_wanted=WANTED_SAMPLES,
        sentence=_sentence(share, speedup, samples),
    )


def slowdown(wall: float, processor: float) -> float:
    """Seconds that passed for each of this process's own, since these two times."""
    passed, used = time.monotonic() - wall, time.process_time() - processor
    return min(max(passed / max(used, 1e-3), 1.0), _MOST_SLOWDOWN)


def _reachable(path: Path) -> dict[str, str]:
    """The kernel family of each node that holds a weight and has int8 kernels, by its name."""
    model = graph.load(path)
    graph.name_nodes(model)
    return {
        node.name or "": _FAMILY[node.op_type]
        for weight in graph.weights(model)
        for node in weight.nodes
        if node.op_type in _FAMILY
    }


def _peak_memory(path: Path) -> int:
    return (_PROCESS_MB + _ACTIVATIONS_MB) * 1_000_000 + 5 * graph.file_bytes(path)


def _seconds(latency_ms: float, samples: int, budget: float) -> float:
    one = _GLANCE + _INFERENCES * samples * latency_ms / 1e3
    return round(min(_CANDIDATES * one + _REPORT, budget), 1)


def _sentence(share: float, speedup: float, samples: int) -> str:
    if share < 0.2:
        can = f"int8 kernels reach only {100 * share:.0f} % of the time: expect a smaller file"
    else:
        can = (
            f"int8 kernels can reach {100 * share:.0f} % of the time: about {speedup:.1f}x "
            "at most on this CPU"
        )
    data = (
        f"{samples} samples are there" if samples >= WANTED_SAMPLES else _more_samples(samples)
    )
    return f"{can[0].upper()}{can[1:]}; {data}."


def _more_samples(samples: int) -> str:
    if not samples:
        return f"nothing can be verified without samples, {WANTED_SAMPLES} would be good"
    return f"{samples} samples are there, {WANTED_SAMPLES} would be good"


@cache
def kernel_speedup() -> dict[str, float]:
    """How much faster int8 is than float here, on one small layer of each kind, one thread."""
    return {op: round(_ratio(op), 2) for op in ("Conv", "MatMul")}


def _ratio(op: str) -> float:
    shape = (1, 64, 28, 28) if op == "Conv" else (128, 384)
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (64, 64, 3, 3) if op == "Conv" else (384, 384), np.int8)
    pixels = rng.integers(0, 256, shape, np.uint8)
    floats = _session(_float_layer(op, weight.astype(np.float32), shape))
    integers = _session(_int8_layer(op, weight, shape))
    times = np.array(
        [
            (_timed(floats, pixels.astype(np.float32)), _timed(integers, pixels))
            for _ in range(_ROUNDS)
        ]
    )
    return float(median(times[:, 0]) / median(times[:, 1]))


def _timed(session: ort.InferenceSession, feed: np.ndarray) -> float:
    start = time.perf_counter()
    session.run(None, {"x": feed})
    return time.perf_counter() - start


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _float_layer(op: str, weight: np.ndarray, shape: tuple[int, ...]) -> onnx.ModelProto:
    node = helper.make_node(op, ["x", "w"], ["y"], **_padding(op))
    return _model(node, {"w": weight}, TensorProto.FLOAT, shape)


def _int8_layer(op: str, weight: np.ndarray, shape: tuple[int, ...]) -> onnx.ModelProto:
    names = ["x", "s", "zu", "w", "s", "zs", "out", "zu"]
    node = helper.make_node(f"QLinear{op}", names, ["y"], **_padding(op))
    constants = {
        "w": weight,
        "s": np.float32(0.1),
        "out": np.float32(400),
        "zu": np.uint8(128),
        "zs": np.int8(0),
    }
    return _model(node, constants, TensorProto.UINT8, shape)


def _padding(op: str) -> dict[str, Any]:
    return {"pads": [1, 1, 1, 1]} if op == "Conv" else {}


def _model(
    node: onnx.NodeProto,
    constants: Mapping[str, Any],
    dtype: int,
    shape: tuple[int, ...],
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()]
    made = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, shape)],
        tensors,
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(made, opset_imports=opset, ir_version=9)
