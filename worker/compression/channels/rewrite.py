"""Take channels out of a graph for good: weights, and every constant that counts them."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from worker.compression.channels.groups import Cut, Structure
from worker.compression.channels.rules.convolution import by_whole_groups
from worker.compression.channels.shapes import recount
from worker.compression.channels.surgery import Surgery


def prune(model: ir.Model, structure: Structure, cut: Cut) -> ir.Model:
    """A copy of a prepared model without the channels that `cut` marks."""
    copy = model.clone()
    for node in list(copy.graph):
        change = CHANGES.get(node.op_type)
        surgery = Surgery(node, copy.graph, structure, cut)
        tensors = (*node.inputs, *node.outputs)
        if change is not None and any(surgery.changes(value) for value in tensors):
            change(surgery)
    for name, value in copy.graph.initializers.items():
        _shrink(value, structure, cut, name)
    for node in copy.graph:
        for value in node.outputs:
            _restate_shape(value, structure, cut)
    return copy


def mask(model: ir.Model, structure: Structure, cut: Cut) -> ir.Model:
    """A copy of the same size whose weights read zero from the channels that `cut` marks."""
    copy = model.clone()
    for name, array in masked(model, structure, cut).items():
        value = copy.graph.initializers[name]
        if value.const_value is not None:
            value.const_value = ir.Tensor(array, dtype=value.const_value.dtype, name=name)
    return copy


def masked(model: ir.Model, structure: Structure, cut: Cut) -> dict[str, np.ndarray]:
    """The weights that read from channels which `cut` marks, zero there."""
    found: dict[str, np.ndarray] = {}
    uses = {use.place for group in structure.groups for use in group.consumers}
    for place in sorted(uses):
        tensor = model.graph.initializers[place.value].const_value
        gone = ~structure.kept(place.value, place.axis, cut)
        if tensor is None or not gone.any():
            continue
        # A weight may read channels along two of its axes.
        array = found.get(place.value, tensor.numpy()).copy()
        np.moveaxis(array, place.axis, 0)[gone] = 0
        found[place.value] = array
    return found


def _shrink(value: ir.Value, structure: Structure, cut: Cut, name: str) -> None:
    tensor = value.const_value
    if tensor is None or name not in structure.axes:
        return
    masks = [structure.kept(name, axis, cut) for axis in range(len(structure.axes[name]))]
    if all(kept.all() for kept in masks):
        return
    array = tensor.numpy()
    for axis, kept in enumerate(masks):
        array = np.compress(kept, array, axis=axis)
    value.const_value = ir.Tensor(np.ascontiguousarray(array), dtype=tensor.dtype, name=name)
    value.shape = ir.Shape(array.shape)


def _restate_shape(value: ir.Value, structure: Structure, cut: Cut) -> None:
    axes = structure.axes.get(value.name or "", ())
    if value.shape is None or len(axes) != len(value.shape):
        return
    kept = [structure.kept(value.name or "", axis, cut) for axis in range(len(axes))]
    sizes = [
        size if here.all() else int(here.sum())
        for size, here in zip(value.shape, kept, strict=True)
    ]
    value.shape = ir.Shape(sizes)


def _conv(at: Surgery) -> None:
    groups = at.node.attributes.get_int("group", 1)
    x = at.node.inputs[0]
    per_group = at.before(x)[1] // groups
    if groups > 1 and by_whole_groups(groups, per_group):
        at.node.attributes["group"] = ir.AttrInt64("group", at.after(x)[1] // per_group)


def _recurrent(at: Surgery) -> None:
    at.node.attributes["hidden_size"] = ir.AttrInt64(
        "hidden_size", at.after(at.node.inputs[2])[2]
    )


def _split(at: Surgery) -> None:
    axis = at.node.attributes.get_int("axis", 0)
    sizes = [at.after(value)[axis] for value in at.node.outputs]
    if "split" in at.node.attributes:
        at.node.attributes["split"] = ir.AttrInt64s("split", sizes)
        return
    at.node.attributes.pop("num_outputs", None)
    at.set_input(1, np.array(sizes, dtype=np.int64), "split")


def _slice(at: Surgery) -> None:
    """Starts and ends move by what was removed before them."""
    starts, ends = at.integers(1, "starts"), at.integers(2, "ends")
    if starts is None or ends is None:
        return
    x, rank = at.node.inputs[0], len(at.before(at.node.inputs[0]))
    named = at.integers(3, "axes") or list(range(len(starts)))
    steps = at.integers(4, "steps") or [1] * len(starts)
    for position, axis in enumerate(named):
        kept = at.mask(x, axis % rank)
        if kept.all():
            continue
        part = range(kept.size)[starts[position] : ends[position] : steps[position]]
        if steps[position] != 1:
            # What every other channel was is an irregular choice now.
            _pick(at, axis, part, kept)
            starts[position], ends[position], steps[position] = 0, kept.size, 1
        else:
            starts[position] = int(kept[: part.start].sum())
            ends[position] = int(kept[: part.stop].sum())
    at.set_integers(1, starts, "starts")
    at.set_integers(2, ends, "ends")
    if at.constant(4) is not None:
        at.set_integers(4, steps, "steps")


def _pick(at: Surgery, axis: int, part: range, kept: np.ndarray) -> None:
    """Gather the positions of an axis before the node."""
    indices = np.array(part)
    chosen = (np.cumsum(kept) - 1)[indices[kept[indices]]]
    source = at.node.inputs[0]
    gather = ir.Node(
        "",
        "Gather",
        [source, at.constant_of(chosen, "picked")],
        [ir.AttrInt64("axis", axis)],
        name=f"{at.node.name}.pick{axis}",
    )
    gather.outputs[0].name = f"{at.node.name}.picked{axis}"
    at.graph.insert_before(at.node, gather)
    at.node.replace_input_with(0, gather.outputs[0])


def _gather(at: Surgery) -> None:
    indices = at.constant(1)
    x = at.node.inputs[0]
    axis = at.node.attributes.get_int("axis", 0) % len(at.before(x))
    kept = at.mask(x, axis)
    if indices is None or kept.all():
        return
    place = np.cumsum(kept) - 1
    flat = indices % kept.size
    if indices.ndim == 1:
        flat = flat[kept[flat]]
    at.set_input(1, place[flat].astype(indices.dtype), "indices")


def _resize(at: Surgery) -> None:
    sizes = at.constant(3)
    if sizes is None or not sizes.size or "axes" in at.node.attributes:
        return
    changed = np.where(
        np.array(at.before(at.node.outputs[0])) != np.array(at.after(at.node.outputs[0])),
        at.after(at.node.outputs[0]),
        sizes,
    )
    at.set_input(3, changed.astype(sizes.dtype), "sizes")


Change = Callable[[Surgery], None]

CHANGES: dict[str, Change] = {
    "Conv": _conv,
    "ConvTranspose": _conv,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Reshape": recount,
    "Expand": recount,
    "ConstantOfShape": recount,
    "Resize": _resize,
}
