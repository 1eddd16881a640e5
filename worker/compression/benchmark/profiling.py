"""Which kernel ran each layer, and for how long, by ONNX Runtime's own profile."""

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir

from worker.compression import graph

INT8_KERNELS = frozenset(
    {"QLinearConv", "QLinearConvTranspose", "QLinearMatMul", "QGemm", "QAttention"}
    | {"ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
    | {"NhwcQLinearConv", "DynamicQuantizeLSTM", "QConv", "QMoE"}
)
_PRODUCTS = frozenset({"Conv", "MatMul", "Gemm"})
_SECONDS = 0.5
_FEWEST, _MOST = 5, 30
_END = "_kernel_time"
# What ONNX Runtime's optimizers add to the name of a node, or of the output it is named after.
_ADDED = re.compile(r"(_nchwc|_token_\d+|_quant|/\w+Fusion/?|_nhwc)$|^fused |^.*__Inline_\d+__")
_ONLY_PASSED_ON = frozenset(
    {"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Add"}
)
_ONLY_PASSED_ON |= {
    "BatchNormalization",
    "QuantizeLinear",
    "DequantizeLinear",
    "Identity",
    "Mul",
}


@dataclass(frozen=True)
class Kernel:
    """What ran for a node: `op` in the file, `provider_op` as run, median ms of one inference.

    `dtype_in` is the type of its first input, `share` its part of the whole inference.
    Work that ONNX Runtime added (reordering, quantizing) has nodes of its own.
    """

    node: str
    op: str
    provider_op: str
    ms: float
    dtype_in: str
    share: float


def profile(path: Path, feed: Mapping[str, np.ndarray], *, threads: int = 1) -> list[Kernel]:
    """The kernels of one inference, slowest first.

    Nodes without a unique name are named as `graph.name_nodes` does.

    Raises:
        InvalidModel: the model does not load.
    """
    model = graph.load(path)
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        named = _with_unique_names(path, model, Path(folder))
        running = graph.session(named, threads=threads, profile_prefix=Path(folder) / "profile")
        _run(running, feed)
        events = json.loads(Path(running.end_profiling()).read_text())
    return _kernels(events, Names(model))


def int8_share(path: Path, feed: Mapping[str, np.ndarray]) -> float:
    """Share of the multiply-accumulates of Conv, MatMul and Gemm that int8 kernels run."""
    model = graph.load(path)
    graph.name_nodes(model)
    ops = {node.name: node.op_type for node in model.graph.all_nodes()}
    ran = {kernel.node: kernel.provider_op for kernel in profile(path, feed)}
    total = int8 = 0
    for name, count in graph.macs(path, feed).items():
        op = ops.get(name, "")
        if op in _PRODUCTS or op in INT8_KERNELS:
            total += count
            int8 += count * (ran.get(name, op) in INT8_KERNELS)
    return int8 / total if total else 0.0


class Names:
    """From the name that a kernel bears back to the node of the file it stands for."""

    def __init__(self, model: ir.Model) -> None:
        """Name the model's nodes."""
        graph.name_nodes(model)
        nodes = list(model.graph.all_nodes())
        self._nodes = {node.name or "": node for node in nodes}
        self._makers = {value.name: node for node in nodes for value in node.outputs}

    def node(self, kernel: str, provider_op: str) -> ir.Node | None:
        """The node of this name, else the one whose output the kernel is named after."""
        for name in _bare(kernel):
            if name in self._nodes:
                return _fused_into(self._nodes[name], provider_op)
            if name in self._makers:
                return _fused_into(self._makers[name], provider_op)
        return None


def _bare(name: str) -> Iterator[str]:
    """The name, then with ever more of what optimizers added taken off."""
    yield name
    while (shorter := _ADDED.sub("", name)) != name:
        name = shorter
        yield name


def _fused_into(node: ir.Node, provider_op: str) -> ir.Node:
    """A convolution named after its activation's output: the convolution itself."""
    found: ir.Node | None = node
    while found is not None and "Conv" in provider_op and found.op_type != "Conv":
        if found.op_type not in _ONLY_PASSED_ON:
            return node
        given = (value for value in found.inputs if graph.constant(value) is None)
        value = next(given, None)
        found = None if value is None else value.producer()
    return found or node


def _with_unique_names(path: Path, model: ir.Model, folder: Path) -> Path:
    names = [node.name for node in model.graph.all_nodes()]
    if all(names) and len(set(names)) == len(names):
        return path.resolve()
    graph.name_nodes(model)
    graph.save(model, folder / "named.onnx")
    return folder / "named.onnx"


def _run(session: Any, feed: Mapping[str, np.ndarray]) -> None:  # noqa: ANN401 - untyped library
    start = time.perf_counter()
    for done in range(_MOST):
        if done >= _FEWEST and time.perf_counter() - start > _SECONDS:
            break
        session.run(None, dict(feed))


def _kernels(events: list[dict[str, Any]], names: Names) -> list[Kernel]:
    runs = [(event["ts"], event["ts"] + event["dur"]) for event in events if _is_run(event)]
    took: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(runs))
    parts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    told: dict[str, tuple[str, str]] = {}
    place = 0
    kernels = [event for event in events if _is_kernel(event)]
    for event in sorted(kernels, key=lambda event: float(event["ts"])):
        while place < len(runs) - 1 and event["ts"] > runs[place][1]:
            place += 1
        provider_op = event["args"]["op_name"]
        kernel = event["name"].removesuffix(_END)
        node = names.node(kernel, provider_op)
        name = kernel if node is None else node.name or kernel
        took[name][place] += event["dur"] / 1000
        parts[name][provider_op] += event["dur"]
        told.setdefault(
            f"{name}\0{provider_op}",
            (node.op_type if node else provider_op, _dtype(event["args"])),
        )
    return _summed(took, parts, told)


def _summed(
    took: Mapping[str, list[float]],
    parts: Mapping[str, Mapping[str, float]],
    told: Mapping[str, tuple[str, str]],
) -> list[Kernel]:
    milliseconds = {name: median(times) for name, times in took.items()}
    total = sum(milliseconds.values()) or 1.0
    found = []
    for name, ms in milliseconds.items():
        provider_op = max(parts[name], key=lambda op: parts[name][op])
        op, dtype = told[f"{name}\0{provider_op}"]
        found.append(Kernel(name, op, provider_op, ms, dtype, ms / total))
    return sorted(found, key=lambda kernel: -kernel.ms)


def _is_run(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Session" and event.get("name") == "model_run"


def _is_kernel(event: Mapping[str, Any]) -> bool:
    return event.get("cat") == "Node" and str(event.get("name", "")).endswith(_END)


def _dtype(arguments: Mapping[str, Any]) -> str:
    return next((kind for given in arguments["input_type_shape"] for kind in given), "")
