"""What the first layers make of data, and whether that is what they were trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common_passes

from worker.compression import graph
from worker.compression.calibration import Feed

_TINY = 1e-6

Moments = tuple[np.ndarray, np.ndarray]
"""Mean and variance of each channel."""


@dataclass(frozen=True)
class Trained:
    """Mean and variance of each channel that a BatchNorm saw in training."""

    name: str
    mean: np.ndarray
    variance: np.ndarray

    def divergence(self, moments: Moments) -> np.ndarray:
        """Kullback-Leibler divergence of two normals for each channel, in nats."""
        mean, variance = moments
        was, now = self.variance + _TINY, variance + _TINY
        apart = now / was + (mean - self.mean) ** 2 / was - 1 - np.log(now / was)
        return np.asarray(apart / 2)


class FirstLayers:
    """The model up to its first BatchNorms, or up to its first Conv where it has none.

    `trained` is empty there. `None` of `open` means that the main graph has neither.
    """

    def __init__(self, path: Path, names: Sequence[str], trained: Sequence[Trained]) -> None:
        self.trained = list(trained)
        self._names = list(names)
        self._session = graph.session(path)
        self._inputs = {value.name for value in self._session.get_inputs()}

    @classmethod
    def open(cls, model: Path, workdir: Path, *, most: int) -> "FirstLayers | None":
        opened = graph.load(model)
        norms = [found for node in opened.graph if (found := _norm(node))][:most]
        convs = [node.outputs[0] for node in opened.graph if node.op_type == "Conv"][:1]
        values = [value for value, _ in norms] or convs
        if not values:
            return None
        path = workdir / f"first-{most}-layers.onnx"
        _cut(opened, values)
        graph.save(opened, path)
        return cls(path, [value.name or "" for value in values], [one for _, one in norms])

    def moments(self, feeds: Sequence[Feed]) -> list[Moments]:
        """Mean and variance of each channel over all feeds, layer by layer."""
        sums = [np.zeros((3, 1)) for _ in self._names]
        for feed in feeds:
            known = {name: value for name, value in feed.items() if name in self._inputs}
            for number, value in enumerate(self._session.run(self._names, known)):
                sums[number] = sums[number] + _sums(np.asarray(value, np.float64))
        return [_moments(one) for one in sums]


def spread(moments: Moments) -> float:
    """Median standard deviation of a layer's channels."""
    return float(np.median(np.sqrt(moments[1])))


def divergences(layers: FirstLayers, feeds: Sequence[Feed]) -> list[np.ndarray]:
    """For each BatchNorm and each of its channels, how far the feeds are from training."""
    pairs = zip(layers.trained, layers.moments(feeds), strict=True)
    return [one.divergence(found) for one, found in pairs]


def _norm(node: ir.Node) -> tuple[ir.Value, Trained] | None:
    """What a BatchNorm reads, and what it read in training; None for other operators."""
    if node.op_type != "BatchNormalization" or node.inputs[0] is None:
        return None
    mean, variance = (graph.constant(node.inputs[place]) for place in (3, 4))
    if mean is None or variance is None:
        return None
    trained = Trained(
        node.name or "", mean.numpy().astype(np.float64), variance.numpy().astype(np.float64)
    )
    return node.inputs[0], trained


def _cut(model: ir.Model, values: Sequence[ir.Value]) -> None:
    """End the graph at these values, without what only later nodes need."""
    model.graph.outputs.clear()
    for value in values:
        if value.type is None:
            value.type = ir.TensorType(ir.DataType.FLOAT)
        model.graph.outputs.append(value)
    common_passes.RemoveUnusedNodesPass()(model)


def _sums(value: np.ndarray) -> np.ndarray:
    """Count, sum and sum of squares of each channel, axis 1."""
    axes = (0, *range(2, value.ndim))
    count = np.full(value.shape[1], value.size / value.shape[1])
    return np.stack([count, value.sum(axis=axes), np.square(value).sum(axis=axes)])


def _moments(sums: np.ndarray) -> Moments:
    mean = sums[1] / sums[0]
    return mean, np.maximum(sums[2] / sums[0] - mean**2, 0)


def with_input(feed: Mapping[str, np.ndarray], name: str, value: np.ndarray) -> Feed:
    return {**feed, name: np.ascontiguousarray(value, feed[name].dtype)}
