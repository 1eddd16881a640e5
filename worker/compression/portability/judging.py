"""The verdict over a whole model: safe by its weights, or simulated on samples."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.portability.pairs import count_saturated, safe
from worker.compression.portability.products import Product, products

# Samples that are simulated, while those before them held no more activations than this.
_SAMPLES, _ELEMENTS = 8, 100_000_000


@dataclass
class Saturation:
    """Outputs of one layer over all samples, and how many of them a pair saturated."""

    layer: str
    saturated: int = 0
    outputs: int = 0


@dataclass(frozen=True)
class Products:
    """All products of uint8 and int8: how many layers, and those that weights do not settle.

    `unseen` names layers whose weights could saturate and which no run can show.
    """

    layers: int = 0
    samples: int = 0
    simulated: Sequence[Saturation] = field(default_factory=list)
    unseen: Sequence[str] = field(default_factory=list)


def judge_products(path: Path, samples: CalibrationSet) -> Products:
    """Simulate pairs of products in 16 bits, where a layer's weights could saturate them."""
    every = list(products(graph.load(path)))
    open_ = [one for one in every if not all(safe(part) for part in one.weights)]
    shown = [one for one in open_ if one.tap is not None]
    unseen = [one.name for one in open_ if one.tap is None]
    if not shown or not len(samples):
        return Products(len(every), 0, [], unseen + [one.name for one in shown])
    try:
        return _simulated(path, samples, shown, Products(len(every), unseen=unseen))
    except Exception:  # not as it is delivered: with other outputs, and without optimization
        return Products(len(every), 0, [], [one.name for one in open_])


def _simulated(
    path: Path, samples: CalibrationSet, shown: Sequence[Product], others: Products
) -> Products:
    found = {one: Saturation(one.name) for one in shown}
    used = 0
    with tempfile.TemporaryDirectory(prefix="pairs-") as folder:
        tapped = Path(folder) / "tapped.onnx"
        _write(path, shown, tapped)
        session = graph.session(tapped, optimize=False)
        names = list(dict.fromkeys(one.tap or "" for one in shown))
        elements = 0
        for number in range(min(len(samples), _SAMPLES)):
            made = dict(zip(names, session.run(names, dict(samples[number])), strict=True))
            used += 1
            for one, saturation in found.items():
                _add(saturation, one, made)
            elements += sum(np.asarray(value).size for value in made.values())
            if elements * (used + 1) > _ELEMENTS * used:
                break
    return replace(others, samples=used, simulated=list(found.values()))


def _write(path: Path, shown: Sequence[Product], tapped: Path) -> None:
    """The model with the uint8 tensors of these layers as its outputs."""
    model = graph.load(path)
    named = {value.name: value for node in model.graph for value in node.outputs}
    named |= {value.name: value for value in model.graph.inputs}
    taps = dict.fromkeys(one.tap for one in shown)
    for name in taps:
        value = named[name]
        value.type, value.shape = ir.TensorType(ir.DataType.UINT8), None
        if not value.is_graph_output():
            model.graph.outputs.append(value)
    graph.save(model, tapped)


def _add(saturation: Saturation, product: Product, made: Mapping[str, object]) -> None:
    activations = np.asarray(made[product.tap or ""])
    if not activations.size:
        return
    for group, weight in enumerate(product.weights):
        if product.window is None:
            flat = activations.T if product.turned else activations
            rows = flat.reshape(-1, flat.shape[-1])
            largest = rows.max(axis=0).astype(np.int32)
            count = count_saturated(weight, rows.T.__getitem__, largest)
            saturation.outputs += len(rows) * weight.shape[1]
        else:
            count = _convolved(saturation, product, activations, group)
        saturation.saturated += count


def _convolved(
    saturation: Saturation, product: Product, activations: np.ndarray, group: int
) -> int:
    window, weight = product.window, product.weights[group]
    if window is None:
        raise ValueError(f"{product.name} is no convolution")
    padded = window.padded(activations, product.zero_point)
    first = group * window.group_inputs
    channels = padded[:, first : first + window.group_inputs]
    peak = channels.max(axis=(0, *range(2, channels.ndim))).astype(np.int32)
    largest = np.tile(peak, len(weight) // len(peak))
    saturation.outputs += len(window.column(padded, group, 0)) * weight.shape[1]
    return count_saturated(weight, partial(window.column, padded, group), largest)
