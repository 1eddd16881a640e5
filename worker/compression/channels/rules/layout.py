"""Operators that only move, split and merge axes."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from worker.compression.channels.atoms import Labels, fixed
from worker.compression.channels.rules.indexing import slices
from worker.compression.channels.site import Axes, Rule, Site

# Leading factors up to this size beside two or more others: query, key and value.
_STACKED = 3
# Larger blocks of axes are not followed element by element.
_MOST_ELEMENTS = 2**23

Block = tuple[tuple[int, ...], tuple[int, ...]]


def transpose(site: Site) -> None:
    x = site.given(0)
    order = site.node.attributes.get_ints("perm", list(reversed(range(len(x)))))
    site.make([x[axis] for axis in order])


def squeeze(site: Site) -> None:
    x = site.given(0)
    axes = site.integers(1, "axes")
    if axes is None and site.name(1) is not None:
        return site.pin_all("drops computed axes")
    if axes is None:
        axes = [axis for axis, labels in enumerate(x) if labels.size == 1]
    gone = {axis % len(x) for axis in axes}
    return site.make([labels for axis, labels in enumerate(x) if axis not in gone])


def unsqueeze(site: Site) -> None:
    made = list(site.given(0))
    axes = site.integers(1, "axes")
    if axes is None:
        return site.pin_all("adds computed axes")
    rank = len(made) + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        made.insert(axis, fixed(1))
    return site.make(made)


def shape_of(site: Site) -> None:
    """Reading an axis' size pins it, unless it only says how to reshape or expand.

    A target shape is recounted when channels go, so the size there is never stale.
    """
    x = site.given(0)
    read: set[int] = set()
    for node, index in site.node.outputs[0].uses():
        if not _only_targets(node, index):
            read |= _read_entries(site, node, len(x))
    for axis in read:
        site.pin(x[axis], "reads the size of this axis")
    site.make_fixed()


# Inputs that say how large the output is to be.
_TARGETS = (("Reshape", 1), ("Expand", 1), ("ConstantOfShape", 0), ("Resize", 3))
_SIZE_ARITHMETIC = frozenset(
    ["Add", "Cast", "Concat", "Div", "Gather", "Mul", "Slice", "Squeeze", "Sub", "Unsqueeze"]
)


def _only_targets(node: ir.Node, index: int) -> bool:
    """Whether a size read here ends in nothing but target shapes."""
    if (node.op_type, index) in _TARGETS:
        return True
    if node.op_type not in _SIZE_ARITHMETIC or (index != 0 and node.op_type == "Slice"):
        return False
    return all(_only_targets(*use) for value in node.outputs for use in value.uses())


def _read_entries(site: Site, reader: ir.Node, rank: int) -> set[int]:
    """Axes whose size one reader takes."""
    start = site.integer("start", 0)
    place = Site(reader, site.ties)
    if reader.op_type == "Gather":
        indices = place.constant(1)
        if indices is not None:
            return {int(entry) % rank + start for entry in np.atleast_1d(indices).ravel()}
    picked = slices(place) if reader.op_type == "Slice" else None
    if picked is not None and 0 in picked:
        return {entry + start for entry in range(rank)[picked[0]]}
    return set(range(rank))


def size_free(site: Site) -> None:
    """Outputs that depend on no channel of what is read."""
    site.make_fixed()


def reshape(site: Site) -> None:
    x, new = site.given(0), site.made_shape()
    blocks = list(matching_blocks([labels.size for labels in x], new))
    if math.prod(new) == 0 or not blocks:
        return site.pin_all("reshapes an empty tensor")
    made: Axes = [fixed(size) for size in new]
    for before, after in blocks:
        parts = _reshaped(site, [x[axis] for axis in before], after)
        for axis, labels in zip(after, parts, strict=True):
            made[axis] = labels
    _tie_to_model_of_shape(site, made)
    return site.make(made)


def _tie_to_model_of_shape(site: Site, made: Axes) -> None:
    """A tensor reshaped to the shape of another shrinks with it."""
    shape = site.node.inputs[1] if len(site.node.inputs) > 1 else None
    source = None if shape is None else shape.producer()
    if source is None or source.op_type != "Shape" or source.inputs[0] is None:
        return
    for labels, other in zip(made, site.ties.labels(source.inputs[0].name or ""), strict=True):
        site.join(labels, other)


def matching_blocks(before: Sequence[int], after: Sequence[int]) -> Iterator[Block]:
    """Smallest runs of axes before and after that hold the same elements."""
    i = j = 0
    while i < len(before) and j < len(after):
        left, right = [i], [j]
        while (a := math.prod(before[k] for k in left)) != (
            b := math.prod(after[k] for k in right)
        ):
            side, limit = (left, len(before)) if a < b else (right, len(after))
            if side[-1] + 1 >= limit:
                return
            side.append(side[-1] + 1)
        yield tuple(left), tuple(right)
        i, j = left[-1] + 1, right[-1] + 1


def _reshaped(site: Site, before: Axes, axes: Sequence[int]) -> Axes:
    """Labels of the new axes of one block. At most one old axis may carry channels."""
    after = [site.made_shape()[axis] for axis in axes]
    if len(before) == 1 and len(after) == 1:
        return [before[0]]
    free = [axis for axis, labels in enumerate(before) if site.ties.atoms.is_free(labels)]
    if not free or math.prod(after) > _MOST_ELEMENTS:
        return _held(site, before, after)
    for axis in free[1:]:
        site.pin(before[axis], "merges it with another axis of channels")
    merged = _merged(before, free[0]).reshape(after)
    carriers = [axis for axis in range(len(after)) if _varies(merged, axis)]
    carrier = carriers[0] if len(carriers) == 1 else _carrier(site, axes)
    table = np.moveaxis(merged, carrier, 0).reshape(after[carrier], -1)
    if len(carriers) > 1:
        # One factor carries the channels: what differs only in the others is tied.
        site.join(table, table[:, :1])
    made = [fixed(size) for size in after]
    made[carrier] = table[:, 0].copy()
    return made


def _held(site: Site, before: Axes, after: Sequence[int]) -> Axes:
    for labels in before:
        site.pin(labels, "regroups this axis")
    return [fixed(size) for size in after]


def _merged(before: Axes, carrier: int) -> Labels:
    """Labels of all elements of the block, after the one axis that carries channels."""
    sizes = [labels.size for labels in before]
    shape = [1] * len(before)
    shape[carrier] = sizes[carrier]
    return np.broadcast_to(before[carrier].reshape(shape), sizes)


def _varies(labels: Labels, axis: int) -> bool:
    return bool((labels != labels.take([0], axis=axis)).any())


def _carrier(site: Site, axes: Sequence[int]) -> int:
    """The factor that counts units: heads rather than their width, C rather than C's halves."""
    after = [site.made_shape()[axis] for axis in axes]
    wide = [place for place, size in enumerate(after) if size > 1]
    if _is_shuffle(site):
        return wide[-1]
    first = wide[0]
    if len(wide) > 2 and after[first] <= _STACKED:
        return wide[1]
    if after[first] <= _STACKED and _is_picked_apart(site, site.node.outputs[0], axes[first]):
        return wide[1]
    return first


def _is_picked_apart(site: Site, value: ir.Value, axis: int) -> bool:
    """Whether single positions of this axis are taken: query, key and value of one product."""
    for node, index in value.uses():
        here = Site(node, site.ties)
        rank = len(site.ties.trace.shapes.get(value.name or "", ()))
        if node.op_type in ("Gather", "Split") and index == 0:
            if here.integer("axis", 0) % rank == axis:
                return True
            continue
        moved = _moved(here, axis, rank)
        if moved is not None and _is_picked_apart(site, node.outputs[0], moved):
            return True
    return False


def _moved(site: Site, axis: int, rank: int) -> int | None:
    """Where an axis is after an operator that only moves axes."""
    if site.node.op_type == "Transpose":
        order = list(site.node.attributes.get_ints("perm", list(reversed(range(rank)))))
        return order.index(axis)
    if site.node.op_type not in ("Squeeze", "Unsqueeze"):
        return None
    axes = site.integers(1, "axes")
    if axes is None:
        return None
    if site.node.op_type == "Squeeze":
        return axis - sum(gone % rank < axis for gone in axes)
    added = {new % (rank + len(axes)) for new in axes}
    return [place for place in range(rank + len(axes)) if place not in added][axis]


def _is_shuffle(site: Site) -> bool:
    """Reshape, Transpose, Reshape back: channels dealt out to groups (ShuffleNet)."""
    between = _only_reader(site.node)
    last = None if between is None else _only_reader(between)
    if between is None or last is None or between.op_type != "Transpose":
        return False
    final = Site(last, site.ties).made_shape()
    swaps = list(between.attributes.get_ints("perm", []))[:3] == [0, 2, 1]
    return last.op_type == "Reshape" and len(final) == len(site.shape(0)) and swaps


def _only_reader(node: ir.Node) -> ir.Node | None:
    readers = list(node.outputs[0].uses())
    return readers[0][0] if len(readers) == 1 else None


def depth_to_space(site: Site) -> None:
    x = site.given(0)
    block = site.integer("blocksize", 1)
    channels = x[1].size // block**2
    by_column = site.node.attributes.get_string("mode", "DCR") == "CRD"
    table = x[1].reshape(channels, -1) if by_column else x[1].reshape(-1, channels).T
    site.join(table, table[:, :1])
    space = [fixed(size) for size in site.made_shape()[2:]]
    site.make([x[0], table[:, 0].copy(), *space])


def space_to_depth(site: Site) -> None:
    x = site.given(0)
    block = site.integer("blocksize", 1)
    space = [fixed(size) for size in site.made_shape()[2:]]
    site.make([x[0], np.tile(x[1], block**2), *space])


def resize(site: Site) -> None:
    """Axes that keep their size pass, where no computed size could count other channels."""
    x, shape = site.given(0), site.made_shape()
    computed = any(
        site.name(index) is not None and not site.is_constant(index) for index in (2, 3)
    )
    made: Axes = []
    for axis, (labels, size) in enumerate(zip(x, shape, strict=True)):
        if labels.size != size or (computed and not _is_copied(site, axis)):
            site.pin(labels, "resizes this axis")
        made.append(labels if labels.size == size else fixed(size))
    site.make(made)


def _is_copied(site: Site, axis: int) -> bool:
    """Whether computed sizes begin with those of the very tensor that is resized."""
    sizes = site.node.inputs[3] if len(site.node.inputs) > 3 else None
    joint = None if sizes is None else sizes.producer()
    first = None if joint is None or joint.op_type != "Concat" else joint.inputs[0]
    part = None if first is None else first.producer()
    if part is None or part.op_type != "Slice" or part.inputs[0] is None:
        return False
    source = part.inputs[0].producer()
    picked = slices(Site(part, site.ties)) or {}
    ahead = range(len(site.shape(0)))[picked.get(0, slice(0))]
    is_own = source is not None and source.inputs[0] is site.node.inputs[0]
    return is_own and ahead.start == 0 and axis in ahead


LAYOUT: dict[str, Rule] = {
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Shape": shape_of,
    "Range": size_free,
    "Reshape": reshape,
    "Flatten": reshape,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "Resize": resize,
    "Upsample": resize,
}
