"""Biases that give every layer of the int8 network the mean output of the float one.

Nagel et al. 2019 (arXiv 1906.04721, section 4.2) and 2021 (arXiv 2106.08295, section 3.3), from
samples: b += E[y_float] - E[y_int8] for each output channel, with y_int8 computed behind layers
that are corrected already. One run of each sample does for all layers: behind each layer the
int8 network adds what brings its mean on this sample to the float one's, before the next layer
reads it. Correcting all layers at once by what an uncorrected run showed, again and again, does
not converge: in efficientnet_lite0 the corrections of its last blocks blow up.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from worker.compression import graph
from worker.compression.calibration import CalibrationSet, Feed
from worker.compression.quantization.operators import BIAS_INPUTS

# Every fourth sample judges what the others propose; with fewer there is nothing to judge by.
_JUDGES = 4
FEWEST_SAMPLES = 8
# Operator set from which ReduceMean takes its axes as an input.
_AXES_AS_INPUT = 18
# More samples hardly move a mean.
_MOST_SAMPLES = 128
# Shares of the correction that are judged, all of it first.
_SHARES = (1.0, 0.5)

# Name of the input that says whether the values given are means to follow.
_FOLLOW = "follow the means"

Means = dict[str, np.ndarray]


@dataclass(frozen=True)
class Corrected:
    """What to add to the bias of each layer, by node name, and what it did on the judges.

    `before` and `after` are the noise of the outputs in shares of their power. `amounts` is
    empty where no correction lowered it.
    """

    amounts: Mapping[str, np.ndarray]
    before: float
    after: float


def bias_corrections(
    original: Path,
    quantized: ir.Model,
    samples: CalibrationSet,
    *,
    threads: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> Corrected:
    """Corrections of the biases of Conv and Gemm in a network of Q and DQ.

    `original` is the prepared float model, whose nodes have the names of those in `quantized`,
    which is changed and must not be used any more. Files are written beside it. Memory does not
    grow with the samples, of which there are at least `FEWEST_SAMPLES`.
    """
    some = samples[:_MOST_SAMPLES]
    judges = some.take(range(_JUDGES - 1, len(some), _JUDGES))
    others = some.take([index for index in range(len(some)) if index % _JUDGES != _JUDGES - 1])
    pair = _Pair.of(original, quantized, threads)
    try:
        amounts = _measured(pair, others, lambda share: progress(0.8 * share))
        shares = (0.0, *_SHARES)
        noise = [0.0] * len(shares)
        for place, feed in enumerate(judges):
            for number, share in enumerate(shares):
                noise[number] += pair.noise(feed, _scaled(amounts, share)) / len(judges)
            progress(0.8 + 0.2 * (place + 1) / len(judges))
    finally:
        pair.close()
    best = int(np.argmin(noise))
    kept = _scaled(amounts, shares[best]) if best else {}
    return Corrected(kept, noise[0], noise[best])


def _scaled(amounts: Mapping[str, np.ndarray], share: float) -> Means:
    return {name: np.asarray(share * amount, np.float32) for name, amount in amounts.items()}


def _measured(
    pair: "_Pair", samples: CalibrationSet, progress: Callable[[float], None]
) -> Means:
    """The correction of every layer."""
    sums = _Sums(pair.channels)
    for place, feed in enumerate(samples):
        sums.add(pair.differences(feed))
        progress((place + 1) / len(samples))
    return sums.certain()


@dataclass
class _Sums:
    """Mean and variance over the samples of each layer's difference, channel by channel."""

    channels: Mapping[str, int]
    count: int = 0
    total: Means = field(init=False)
    squares: Means = field(init=False)

    def __post_init__(self) -> None:
        self.total = {name: np.zeros(size) for name, size in self.channels.items()}
        self.squares = {name: np.zeros(size) for name, size in self.channels.items()}

    def add(self, differences: Mapping[str, np.ndarray]) -> None:
        self.count += 1
        for name, one in differences.items():
            finite = np.where(np.isfinite(one), one, 0).astype(np.float64)
            self.total[name] += finite
            self.squares[name] += np.square(finite)

    def certain(self) -> Means:
        """Means lowered by what chance contributes (James and Stein): no noise is added."""
        found = {}
        for name, total in self.total.items():
            mean = total / self.count
            spread = self.squares[name] / self.count - np.square(mean)
            chance = np.maximum(spread, 0) / max(self.count - 1, 1)
            square = np.maximum(np.square(mean), np.finfo(np.float32).tiny)
            found[name] = (mean * np.maximum(0, 1 - chance / square)).astype(np.float32)
        return found


@dataclass
class _Pair:
    """The float network and the int8 one, both telling the mean output of every layer.

    The int8 one computes as floats between Q and DQ. For each layer it takes one value a
    channel: the mean to follow, or what to add.
    """

    channels: Mapping[str, int]
    outputs: int
    float_: ort.InferenceSession
    int8: ort.InferenceSession
    paths: Sequence[Path]

    @classmethod
    def of(cls, original: Path, quantized: ir.Model, threads: int) -> "_Pair":
        names = [node.name or "" for node in quantized.graph if _correctable(node)]
        outputs = len(quantized.graph.outputs)
        plain, path = original.with_name("means.onnx"), original.with_name("corrected.onnx")
        model = graph.load(original)
        channels = _with_means(model, names, corrected=False)
        graph.save(model, plain)
        _with_means(quantized, list(channels), corrected=True)
        graph.save(quantized, path)
        running = [graph.session(one, threads=threads) for one in (plain, path)]
        return cls(channels, outputs, running[0], running[1], (plain, path))

    def differences(self, feed: Feed) -> Means:
        """What each int8 layer lacks of the float one's mean, behind layers that lack nothing.

        Without what it makes of the sample itself: before its own correction.
        """
        means = self.float_.run(None, feed)[self.outputs :]
        wanted = dict(zip(self.channels, means, strict=True))
        found = self._int8(feed, wanted, follow=True)[self.outputs :]
        return {
            name: wanted[name] - mean for name, mean in zip(self.channels, found, strict=True)
        }

    def noise(self, feed: Feed, corrections: Mapping[str, np.ndarray]) -> float:
        """Noise of the outputs as a share of their power, summed over the outputs."""
        wanted = self.float_.run(None, feed)[: self.outputs]
        found = self._int8(feed, corrections, follow=False)[: self.outputs]
        return sum(_noise(left, right) for left, right in zip(wanted, found, strict=True))

    def _int8(
        self, feed: Feed, given: Mapping[str, np.ndarray], *, follow: bool
    ) -> list[np.ndarray]:
        inputs = {_input_name(name): array for name, array in given.items()}
        inputs[_FOLLOW] = np.array(follow)
        results: list[np.ndarray] = self.int8.run(None, {**feed, **inputs})
        return results

    def close(self) -> None:
        for path in self.paths:
            graph.remove(path)


def _noise(wanted: np.ndarray, found: np.ndarray) -> float:
    if wanted.dtype.kind != "f" or wanted.shape != found.shape or not wanted.size:
        return 0.0
    wanted, found = wanted.astype(np.float64), found.astype(np.float64)
    finite = np.isfinite(wanted) & np.isfinite(found)
    power = float(np.square(wanted[finite]).sum())
    lost = float(np.square(wanted[finite] - found[finite]).sum())
    return lost / power if power > 0 else 0.0


def _correctable(node: ir.Node) -> bool:
    """Whether a node is an int8 layer that has a bias, or may be given one."""
    if node.op_type not in BIAS_INPUTS or node.domain not in ("", "ai.onnx"):
        return False
    producers = [value.producer() if value is not None else None for value in node.inputs[:2]]
    return all(one is not None and one.op_type == "DequantizeLinear" for one in producers)


def _input_name(node: str) -> str:
    return f"correction of {node}"


def _with_means(model: ir.Model, names: Sequence[str], *, corrected: bool) -> dict[str, int]:
    """Give a model the mean output of the named layers as outputs; their channels by name.

    With `corrected`, each also takes an input that its output is corrected by.
    """
    nodes = {node.name: node for node in model.graph}
    follow = ir.Value(name=_FOLLOW, type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    if corrected:
        model.graph.inputs.append(follow)
    channels = {}
    for name in names:
        node = nodes.get(name)
        shape = None if node is None else _output_channels(node)
        if node is None or shape is None:
            continue
        channels[name] = shape[0]
        axes = [0, *range(2, len(shape) + 1)]
        mean = _reduced(model, node, axes)
        mean.name, mean.type = f"mean of {name}", ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(mean)
        if corrected:
            _correct(model, node, (mean, follow), shape)
    return channels


def _output_channels(node: ir.Node) -> tuple[int, ...] | None:
    """Shape of one value for each channel, as it is added to the output: (C, 1, 1)."""
    weight = _behind(node.inputs[1])
    if weight is None:
        return None
    shape = weight.shape.numpy()
    if node.op_type == "Conv":
        return (int(shape[0]), *(1 for _ in shape[2:]))
    return (int(shape[0 if node.attributes.get_int("transB", 0) else 1]),)


def _behind(value: ir.Value | None) -> ir.TensorProtocol | None:
    tensor = graph.constant(value)
    producer = value.producer() if value is not None else None
    return graph.constant(producer.inputs[0]) if tensor is None and producer else tensor


def _correct(
    model: ir.Model, node: ir.Node, told: tuple[ir.Value, ir.Value], shape: Sequence[int]
) -> None:
    """Add to a layer's output what is given for it, or what its mean lacks of that."""
    made, (mean, follow) = node.outputs[0], told
    given = ir.Value(
        name=_input_name(node.name or ""),
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape([shape[0]]),
    )
    model.graph.inputs.append(given)
    lacks = ir.node("Sub", [given, mean])
    amount = ir.node("Where", [follow, lacks.outputs[0], given])
    placed = ir.node("Reshape", [amount.outputs[0], _held(model, node, "channels", shape)])
    lifted = ir.node("Add", [made, placed.outputs[0]])
    result = lifted.outputs[0]
    result.type, result.shape = made.type, made.shape
    for use in list(made.uses()):
        if use.node is not lifted and use.node is not mean.producer():
            use.node.replace_input_with(use.idx, result)
    behind = mean.producer()
    model.graph.insert_after(behind or node, [lacks, amount, placed, lifted])
    if made.is_graph_output():
        made.name, result.name = f"{made.name} uncorrected", made.name
        for position, output in enumerate(model.graph.outputs):
            if output is made:
                model.graph.outputs[position] = result


def _reduced(model: ir.Model, node: ir.Node, axes: Sequence[int]) -> ir.Value:
    """Mean over the axes; from operator set 18 on they are an input."""
    made = node.outputs[0]
    if graph.opset(model) < _AXES_AS_INPUT:
        reduce = ir.node("ReduceMean", [made], {"axes": axes, "keepdims": 0})
    else:
        reduce = ir.node(
            "ReduceMean", [made, _held(model, node, "axes", axes)], {"keepdims": 0}
        )
    model.graph.insert_after(node, reduce)
    return reduce.outputs[0]


def _held(model: ir.Model, node: ir.Node, what: str, values: Sequence[int]) -> ir.Value:
    name = graph.free_name(model.graph, f"{what} of {node.name}")
    value = ir.Value(name=name, const_value=ir.tensor(np.array(values, np.int64), name=name))
    model.graph.register_initializer(value)
    return value
