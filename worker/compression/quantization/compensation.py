"""Weights rounded by what their layers read, and biases that take up the mean of the error."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.moments import Linear, Moments, Rounding, linear_layers, stream
from worker.compression.quantization.calibrating import Calibration
from worker.compression.quantization.insertion import Options, Ranges, weight_axis
from worker.compression.quantization.operators import BIAS_INPUTS, scaled_by
from worker.compression.quantization.rounding import clipped_scales, compensated
from worker.compression.quantization.scales import (
    LARGEST,
    QuantizedWeight,
    activation_scale,
    quantize_weight,
)


@dataclass(frozen=True)
class Rounded:
    """A weight for `insert`, and what the bias of its layer takes up of the error (or None)."""

    weight: QuantizedWeight
    bias: np.ndarray | None


def compensated_weights(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    calibration: Calibration,
    options: Options,
    *,
    ranges: Ranges,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, QuantizedWeight]:
    """Weights of the chosen nodes for `insert`, by name, but for shared ones.

    Conv and Gemm get the mean of what is left of the error in their bias, which one without any
    is given. What was rounded before for the same calibration is not rounded again.
    """
    key = ("compensated", options.seven_bit_weights, options.per_channel, seed)
    known = calibration.kept.setdefault(key, {})
    by_name = {node.name: node for node in nodes}
    layers = [layer for layer in linear_layers(nodes) if _alone(model, layer)]
    for layer, moments in stream(
        calibration.path,
        [layer for layer in layers if layer.node not in known],
        calibration.samples,
        seed=seed,
        threads=calibration.threads,
        rounded=_roundings(nodes, ranges, options),
        progress=progress,
    ):
        known[layer.node] = _rounded(model, by_name[layer.node], layer, moments, options)
    found = {}
    for layer in layers:
        one = known.get(layer.node)
        if isinstance(one, Rounded):
            found[layer.weight] = one.weight
            if one.bias is not None:
                add_to_bias(model, by_name[layer.node], one.bias)
    return found


def _roundings(
    nodes: Sequence[ir.Node], ranges: Ranges, options: Options
) -> dict[str, Rounding]:
    """How int8 rounds the tensors that the chosen nodes read, by name."""
    chosen = set(nodes)
    found: dict[str, Rounding] = {}
    for node in nodes:
        value = node.inputs[0]
        source = scaled_by(value, chosen)
        if value is None or source is None or (source.name or "") not in ranges:
            continue
        scale = activation_scale(*ranges[source.name or ""], options.activation_type)
        found[value.name or ""] = scale.rounded
    return found


def _alone(model: ir.Model, layer: Linear) -> bool:
    return len(model.graph.initializers[layer.weight].uses()) == 1


def _rounded(
    model: ir.Model, node: ir.Node, layer: Linear, moments: Moments, options: Options
) -> Rounded:
    array = _array(model, layer.weight)
    axis = weight_axis(node, 1) if options.per_channel else None
    bits = 7 if options.seven_bit_weights else 8
    plain = quantize_weight(array, axis=axis, bits=bits)
    matrix = layer.matrix(array)
    biased = node.op_type in BIAS_INPUTS
    scale = plain.scale
    if axis is not None and bits < 8:
        scale = clipped_scales(matrix, moments.energy(), LARGEST[bits])
        scale = scale.astype(np.float32).ravel()
    gram = shrunk(moments, centred=biased)
    steps = np.broadcast_to(
        scale.astype(np.float64).reshape(layer.groups, -1), _outputs(matrix)
    )
    values = compensated(
        matrix,
        steps,
        gram,
        limits=(-LARGEST[bits], LARGEST[bits]),
        noise=moments.noise(),
    )
    weight = QuantizedWeight(layer.weight_of(values), scale, axis)
    if not biased:
        return Rounded(weight, None)
    mean, made = moments.mean(), layer.matrix(weight.dequantized())
    left = _outer(mean, matrix) - _outer(mean + moments.shift(), made)
    return Rounded(weight, left.ravel())


def _outer(mean: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    made: np.ndarray = np.einsum("gi,gio->go", mean, matrix)
    return made


def shrunk(moments: Moments, *, centred: bool) -> np.ndarray:
    """The Gram with its covariances lowered as far as few rows make them uncertain.

    Without it, a layer with fewer rows than inputs is fitted to these rows and to no others. It
    takes the memory of the sums, whose Gram is used up.
    """
    gram = moments.taken(centred=centred)
    inputs = gram.shape[-1]
    share = inputs / (inputs + moments.count)
    whole = np.diagonal(gram, axis1=1, axis2=2).copy()
    gram *= 1 - share
    places = np.arange(inputs)
    gram[:, places, places] = whole
    return gram


def add_to_bias(model: ir.Model, node: ir.Node, amount: np.ndarray) -> None:
    """Add to the bias of a Conv or Gemm, which owns it; one that has none gets one."""
    index = BIAS_INPUTS[node.op_type]
    held = node.inputs[index] if index < len(node.inputs) else None
    if held is None or held.const_value is None:
        name = graph.free_name(model.graph, f"{node.name}_bias")
        bias = ir.Value(name=name, const_value=ir.tensor(amount.astype(np.float32), name=name))
        model.graph.register_initializer(bias)
        if index < len(node.inputs):
            node.replace_input_with(index, bias)
        else:
            node.resize_inputs(index + 1)
            node.replace_input_with(index, bias)
        return
    array = held.const_value.numpy()
    changed = (array + amount.reshape(array.shape)).astype(np.float32)
    held.const_value = ir.tensor(changed, name=held.name)


def _outputs(matrix: np.ndarray) -> tuple[int, int]:
    return matrix.shape[0], matrix.shape[2]


def _array(model: ir.Model, name: str) -> np.ndarray:
    tensor = model.graph.initializers[name].const_value
    if tensor is None:
        raise ValueError(f"{name} is not constant")
    return tensor.numpy()
