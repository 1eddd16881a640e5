"""Twins of layers, grafted onto the model whose tensors they read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from worker.compression.graph import constant

MASK = "real_places"
"""The input that `graft` adds where some places are padding."""
_FLOAT = {"to": int(ir.DataType.FLOAT)}


@dataclass(frozen=True)
class Limits:
    """The range that the quantization of an output lets through.

    It may stand for a Relu or Clip: then the original has the tensor `before` it, or only the
    one behind it.
    """

    low: float = -math.inf
    high: float = math.inf
    before: bool = False


@dataclass(frozen=True)
class Twin:
    """What stands for one layer: `nodes`, in order, compute `made` from the tensors `reads`.

    `reads` are values without a producer, named as in the original; `target` names the tensor
    of the original that `made`, within `limits`, should equal.
    """

    layer: str
    nodes: tuple[ir.Node, ...]
    reads: tuple[ir.Value, ...]
    made: ir.Value
    target: str
    domains: Mapping[str, int]
    limits: Limits = Limits()


def graft(
    model: ir.Model, twins: Sequence[Twin], ranks: Mapping[str, int] | None = None
) -> ir.Model:
    """The model with its twins; its outputs are each twin's noise, then each target's power.

    `ranks` says of which targets, (batch, places, ...) and with how many axes, only real places
    count: these are 1 in a further input, MASK (batch, places).
    """
    graft = _Graft(model)
    masked = ranks or {}
    if masked:
        graft.take_mask()
    noises, powers = [], []
    for twin in twins:
        made = graft.limited(graft.apply("Cast", [graft.copied(twin)], _FLOAT), twin.limits)
        target = graft.apply("Cast", [graft.values[twin.target]], _FLOAT)
        if twin.limits.before:
            target = graft.limited(target, twin.limits)
        error = graft.apply("Sub", [made, target])
        if twin.target in masked:
            error, target = (
                graft.real_only(value, masked[twin.target]) for value in (error, target)
            )
        noises.append(graft.sum_of_squares(error))
        powers.append(graft.sum_of_squares(target))
        _import(model, twin.domains)
    del model.graph.outputs[:]
    model.graph.outputs.extend([*noises, *powers])
    return model


def shapes(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """The model with the shapes of these tensors as its only outputs."""
    graft = _Graft(model)
    made = [graft.apply("Shape", [graft.values[name]]) for name in names]
    for value in made:
        value.type = ir.TensorType(ir.DataType.INT64)
    del model.graph.outputs[:]
    model.graph.outputs.extend(made)
    return model


def _import(model: ir.Model, domains: Mapping[str, int]) -> None:
    for domain, version in domains.items():
        if model.opset_imports.setdefault(domain, version) != version:
            raise ValueError(f"operators {domain!r} of version {version} are needed")


class _Graft:
    """Adds nodes to a model, under names that it does not use."""

    def __init__(self, model: ir.Model) -> None:
        self._graph = model.graph
        held = list(model.graph.initializers.values())
        made = [value for node in model.graph for value in node.outputs]
        self.values = {value.name or "": value for value in (*model.graph.inputs, *held, *made)}
        self._constants: dict[ir.Value, ir.Value] = {}
        self._masks: dict[int, ir.Value] = {}
        self._prefix = "twin"
        while any(name.startswith(self._prefix) for name in self.values):
            self._prefix += "_"
        self._count = 0

    def take_mask(self) -> None:
        self._mask = ir.Value(name=MASK, type=ir.TensorType(ir.DataType.FLOAT))
        self._mask.shape = ir.Shape([None, None])
        self._graph.inputs.append(self._mask)

    def real_only(self, value: ir.Value, rank: int) -> ir.Value:
        """A tensor of so many axes with zeros at padding."""
        if rank not in self._masks:
            # Zeros stand for the sizes of the mask itself.
            shape = np.array([0, 0, *[1] * (rank - 2)])
            shaped = ir.Value(name="", const_value=ir.tensor(shape))
            self._masks[rank] = self.apply("Reshape", [self._mask, self._constant(shaped)])
        return self.apply("Mul", [value, self._masks[rank]])

    def copied(self, twin: Twin) -> ir.Value:
        """Copy a twin's nodes; its output."""
        known: dict[ir.Value | None, ir.Value | None] = {None: None}
        known |= {value: self._read(value) for value in twin.reads}
        for node in twin.nodes:
            for value in node.inputs:
                if value is not None and value not in known:
                    known[value] = self._constant(value)
            copy = ir.Node(
                node.domain,
                node.op_type,
                [known[value] for value in node.inputs],
                list(node.attributes.values()),
                num_outputs=len(node.outputs),
            )
            self._append(copy, [bool(value.name) for value in node.outputs])
            known.update(zip(node.outputs, copy.outputs, strict=True))
        made = known[twin.made]
        if made is None:
            raise ValueError(f"the twin of {twin.layer} makes nothing")
        return made

    def _read(self, value: ir.Value) -> ir.Value:
        """A tensor of the original, in the type that the twin takes it in, where it says so."""
        given = self.values[value.name or ""]
        return (
            given
            if value.dtype is None
            else self.apply("Cast", [given], {"to": int(value.dtype)})
        )

    def limited(self, value: ir.Value, limits: Limits) -> ir.Value:
        for op, limit in (("Max", limits.low), ("Min", limits.high)):
            if math.isfinite(limit):
                bound = ir.Value(name="", const_value=ir.tensor(np.float32(limit)))
                value = self.apply(op, [value, self._constant(bound)])
        return value

    def sum_of_squares(self, value: ir.Value) -> ir.Value:
        made = self.apply("ReduceSumSquare", [value], {"keepdims": 0})
        made.type = ir.TensorType(ir.DataType.FLOAT)
        return made

    def apply(
        self, op: str, values: Sequence[ir.Value], attributes: Mapping[str, int] | None = None
    ) -> ir.Value:
        node = ir.node(op, values, attributes, num_outputs=1)
        self._append(node, [True])
        return node.outputs[0]

    def _append(self, node: ir.Node, named: Sequence[bool]) -> None:
        self._count += 1
        node.name = f"{self._prefix}_{self._count}"
        for place, (value, has_name) in enumerate(zip(node.outputs, named, strict=True)):
            # An output that is left out has no name.
            value.name = f"{node.name}_{place}" if has_name else ""
        self._graph.append(node)

    def _constant(self, value: ir.Value) -> ir.Value:
        if value not in self._constants:
            tensor = constant(value)
            if tensor is None:
                raise ValueError(f"{value.name} is not constant")
            name = f"{self._prefix}_constant_{len(self._constants)}"
            tensor = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
            held = ir.Value(name=name, const_value=tensor)
            self._graph.register_initializer(held)
            self._constants[value] = held
        return self._constants[value]
