"""Give a converted model's weights the names that they have in the module.

The exporter leaves the names of the wrapper, loses those of LSTM weights and of lists, and
computes masked and normalised weights in the graph. Here each weight becomes one initializer
under its module path, so that patterns find it and pruning sees the zeros of a mask.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from worker.ingest.folding import MIN_SIZE, constants, fold_computed_weights
from worker.ingest.module import INNER


def restore(model: ir.Model, state: Mapping[str, np.ndarray]) -> None:
    """Rename and fold in place; `state` is the module's state dict."""
    _unwrap(model)
    _part(model, state)
    _name_by_content(model, state)
    fold_computed_weights(model)
    _order(model, list(state))


def state_of(module: Any) -> dict[str, np.ndarray]:  # noqa: ANN401 - a ScriptModule
    """The state dict as arrays, and what each mask of torch.nn.utils.prune leaves."""
    import torch  # noqa: PLC0415 - the web process never loads torch

    plain = (torch.float16, torch.float32, torch.float64)
    arrays = {
        name: tensor.detach().numpy()
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, torch.Tensor) and tensor.dtype in plain
    }
    masked = {
        name.removesuffix("_orig"): array * arrays[f"{name.removesuffix('_orig')}_mask"]
        for name, array in arrays.items()
        if name.endswith("_orig") and f"{name.removesuffix('_orig')}_mask" in arrays
    }
    return {**arrays, **masked}


def _unwrap(model: ir.Model) -> None:
    """Take the wrapper's own name out of all names."""
    for graph in model.graphs():
        for value in list(graph.initializers.values()):
            if value.name and value.name.startswith(f"{INNER}."):
                value.name = value.name.removeprefix(f"{INNER}.")
    nodes = list(model.graph.all_nodes())
    _take_scope_out(nodes)
    _take_scope_out([output for node in nodes for output in node.outputs])


def _take_scope_out(named: Sequence[ir.Node] | Sequence[ir.Value]) -> None:
    """Rename where the shorter name is free: the wrapper's own constants have names like it."""
    taken = {item.name for item in named}
    for item in named:
        short = (item.name or "").replace(f"/{INNER}/", "/", 1)
        if short not in taken:
            taken.add(short)
            item.name = short


def _order(model: ir.Model, names: list[str]) -> None:
    """Put the initializers in the module's order, which decides where magnitudes tie."""
    place = {name: number for number, name in enumerate(names)}
    values = list(model.graph.initializers.values())
    for value in values:
        if value.name:
            del model.graph.initializers[value.name]
    for value in sorted(values, key=lambda value: place.get(value.name or "", len(place))):
        model.graph.register_initializer(value)


def _part(model: ir.Model, state: Mapping[str, np.ndarray]) -> None:
    """Part parameters that the exporter joined because they are equal, but not the same."""
    for node in list(model.graph.all_nodes()):
        source = node.inputs[0] if node.op_type == "Identity" else None
        if source is None or not source.is_initializer() or node.outputs[0].is_graph_output():
            continue
        name = (node.outputs[0].name or "").removeprefix(f"{INNER}.")
        mine, its = state.get(name), state.get(source.name or "")
        if mine is None or its is None or np.shares_memory(mine, its):
            node.outputs[0].replace_all_uses_with(source)
            continue
        node.outputs[0].name = f"{name}__joined"
        own = ir.val(name, const_value=ir.tensor(mine, name=name))
        model.graph.register_initializer(own)
        node.outputs[0].replace_all_uses_with(own)


def _name_by_content(model: ir.Model, state: Mapping[str, np.ndarray]) -> None:
    taken = {value.name for value in constants(model)}
    known: dict[str, list[str]] = {}
    for name, array in state.items():
        if name not in taken and _is_telling(array):
            known.setdefault(_digest(array), []).append(name)
    for value in list(constants(model)):
        tensor = ir.convenience.get_const_tensor(value)
        if value.name in state or tensor is None or tensor.size < MIN_SIZE:
            continue
        names = known.get(_digest(tensor.numpy()))
        if names and not value.is_graph_output():
            value.name = names.pop(0)


def _is_telling(array: np.ndarray) -> bool:
    return (
        array.size >= MIN_SIZE
        and array.dtype.kind == "f"
        and bool((array != array.flat[0]).any())
    )


def _digest(array: np.ndarray) -> str:
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes())
    return f"{array.dtype}{array.shape}{content.hexdigest()}"
