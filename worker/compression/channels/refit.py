"""Least-squares refit of the layers that lost channels, in graph order.

Inputs come from the pruned graph as it stands, targets from the original, so that each layer
also makes up for what the layers before it lost (He et al. 2017; algorithms.md 1.4).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression.channels.frontier import Frontier
from worker.compression.channels.groups import Cut, Structure
from worker.compression.channels.layers import Layer
from worker.compression.channels.moments import Array, Moments
from worker.compression.channels.observe import Observation, is_held_out
from worker.compression.channels.recurrence import RecurrentLayer
from worker.compression.channels.solving import solve
from worker.compression.channels.trace import Feed


@dataclass(frozen=True)
class Refit:
    """What a refit works on: the pruned model, which it changes, and how it was cut."""

    model: ir.Model
    structure: Structure
    cut: Cut
    observations: Mapping[str, Observation]
    samples: Sequence[Feed]
    folder: Path
    threads: int

    def run(self, progress: Callable[[float], None]) -> list[str]:
        """Refit every layer that lost inputs or stands behind one; gives their node names."""
        frontier = Frontier(self.model, self.samples, self.folder, threads=self.threads)
        layers = self._concerned()
        for number, layer in enumerate(layers):
            self._refit(layer, frontier)
            progress((number + 1) / len(layers))
        return list(dict.fromkeys(layer.node for layer in layers))

    def _concerned(self) -> list[Layer]:
        """From the first layer that lost inputs on: those behind it read its error."""
        layers = [seen.layer for seen in self.observations.values()]
        lost = [place for place, layer in enumerate(layers) if self._lost(layer)]
        return layers[lost[0] :] if lost else []

    def _lost(self, layer: Layer) -> bool:
        return not self.structure.kept(layer.weight, layer.sum_axis, self.cut).all()

    def _refit(self, layer: Layer, frontier: Frontier) -> None:
        if not _reads_own_states(layer):
            names = [layer.x] if layer.shortcut is None else [layer.x, layer.shortcut]
            frontier.advance(names)
        value = self.model.graph.initializers[layer.weight]
        if value.const_value is None:
            return
        weight = value.const_value.numpy()
        fit, check = self._moments(layer, frontier, layer.matrix(weight))
        if layer.mode == "channel":
            self._by_channel(layer, weight, fit, check)
        else:
            self._by_patch(layer, weight, fit, check)

    def _moments(
        self, layer: Layer, frontier: Frontier, matrix: np.ndarray
    ) -> tuple[Moments, Moments]:
        """Pruned inputs against targets, of the samples that fit and of those held out."""
        targets = self.observations[layer.weight].targets
        whole = layer.mode == "channel"
        kept = np.s_[:] if whole else layer.kept_columns(self.structure, self.cut)
        columns = targets.rows(0)[:, :, kept].shape[2]
        groups, inputs = matrix.shape[:2]
        fit, check = (Moments(groups, inputs, columns) for _ in range(2))
        for sample in range(len(self.samples)):
            positions = targets.positions[sample]
            aims = targets.rows(sample)
            if _reads_own_states(layer):
                rows = aims[:, :, self.structure.kept(layer.weight, layer.sum_axis, self.cut)]
            else:
                rows = layer.inputs_at(frontier.value(layer.x, sample), positions)
            aims = aims[:, :, kept]
            if layer.shortcut is not None:
                shortcut = frontier.value(layer.shortcut, sample)
                aims = aims - layer.outputs_at(shortcut, positions)
            (check if is_held_out(sample) else fit).add(rows, aims)
        return fit, check

    def _by_patch(self, layer: Layer, weight: np.ndarray, fit: Moments, check: Moments) -> None:
        """Formula (1): (G + lambda I) W' = R + lambda W, b' from the means."""
        centred = layer.takes_bias
        matrix = layer.matrix(weight).astype(np.float64)
        solved = solve(fit, check, matrix, centred=centred)
        self._put(layer.weight, layer.restored(solved, weight).astype(weight.dtype))
        if centred:
            mean, aim = fit.merged(check).means()
            reached = np.einsum("gk,gkn->gn", mean, solved)
            shift = aim - reached
            known = layer.mode == "gates"
            self._put_bias(layer, self._shifted(layer, shift) if known else shift.ravel())

    def _by_channel(
        self, layer: Layer, weight: np.ndarray, fit: Moments, check: Moments
    ) -> None:
        """One map from kept to all channels, applied to every tap of the original weight."""
        kept = self.structure.kept(layer.weight, layer.sum_axis, self.cut)
        chosen = np.repeat(np.eye(len(kept))[kept][None], layer.groups, axis=0)
        mapping = solve(fit, check, chosen, centred=layer.takes_bias)
        original = self._original(layer)
        solved = mapping @ layer.matrix(original).astype(np.float64)
        self._put(layer.weight, layer.restored(solved, weight).astype(weight.dtype))
        mean, aim = fit.merged(check).means()
        lost = aim - np.einsum("gk,gkc->gc", mean, mapping)
        if layer.takes_bias:
            self._put_bias(layer, self._shifted(layer, layer.passed_on(lost, original)))

    def _original(self, layer: Layer) -> np.ndarray:
        """The original weight, for the output channels that stay."""
        weight = self.observations[layer.weight].weight
        for axis in range(weight.ndim):
            if axis != layer.sum_axis:
                kept = self.structure.kept(layer.weight, axis, self.cut)
                weight = np.compress(kept, weight, axis=axis)
        return weight

    def _shifted(self, layer: Layer, shift: Array) -> Array:
        """The present bias, zero where there is none, with the shift of each output."""
        if layer.bias is None:
            return shift.ravel()
        tensor = self.model.graph.initializers[layer.bias].const_value
        held = np.zeros(shift.shape) if tensor is None else tensor.numpy()
        return layer.biased(held.astype(np.float64), shift)

    def _put(self, name: str, array: np.ndarray) -> None:
        value = self.model.graph.initializers[name]
        value.const_value = ir.Tensor(np.ascontiguousarray(array), name=name)

    def _put_bias(self, layer: Layer, bias: Array) -> None:
        dtype = self._dtype(layer.weight)
        if layer.bias is not None:
            tensor = self.model.graph.initializers[layer.bias].const_value
            shape = bias.shape if tensor is None else tuple(tensor.shape.numpy())
            self._put(layer.bias, bias.reshape(shape).astype(dtype))
            return
        node = next(node for node in self.model.graph if node.name == layer.node)
        name = f"{layer.node}.bias"
        tensor = ir.Tensor(bias.astype(dtype), name=name)
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(bias.shape),
            const_value=tensor,
        )
        self.model.graph.register_initializer(value)
        node.resize_inputs(3)
        node.replace_input_with(2, value)

    def _dtype(self, name: str) -> np.dtype:
        tensor = self.model.graph.initializers[name].const_value
        return np.dtype(np.float32) if tensor is None else tensor.numpy().dtype


def _reads_own_states(layer: Layer) -> bool:
    """A recurrent weight reads what its own node makes: only the original shows it ahead."""
    return isinstance(layer, RecurrentLayer) and layer.half == 1
