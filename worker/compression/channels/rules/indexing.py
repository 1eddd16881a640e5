"""Operators that pick, join and repeat positions of an axis."""

from itertools import accumulate

import numpy as np

from worker.compression.channels.atoms import Labels, fixed
from worker.compression.channels.site import Axes, Rule, Site


def concat(site: Site) -> None:
    parts = [site.given(index) for index in range(len(site.node.inputs))]
    axis = site.integer("axis", 0) % len(parts[0])
    made: Axes = []
    for here in range(len(parts[0])):
        if here == axis:
            made.append(np.concatenate([part[here] for part in parts]))
            continue
        for part in parts[1:]:
            site.join(part[here], parts[0][here])
        made.append(parts[0][here])
    site.make(made)


def split(site: Site) -> None:
    x = site.given(0)
    axis = site.integer("axis", 0) % len(x)
    sizes = site.integers(1, "split")
    if sizes is None and site.name(1) is not None:
        return site.pin_all("splits at computed positions")
    if sizes is None:
        count = len(site.node.outputs)
        each = -(-x[axis].size // count)
        sizes = [min(each, x[axis].size - each * part) for part in range(count)]
    ends = list(accumulate(sizes))
    for index, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        site.make([*x[:axis], x[axis][start:end], *x[axis + 1 :]], index)
    return None


def slice_(site: Site) -> None:
    x = site.given(0)
    picked = slices(site)
    if picked is None:
        return site.pin_all("slices at computed positions")
    made = list(x)
    for axis, part in picked.items():
        made[axis] = x[axis][part]
    return site.make(made)


def slices(site: Site) -> dict[int, slice] | None:
    """The slice of each axis, normalized; None where it is not constant."""
    starts, ends = site.integers(1, "starts"), site.integers(2, "ends")
    if starts is None or ends is None:
        return None
    shape = site.shape(0)
    axes = site.integers(3, "axes") or list(range(len(starts)))
    steps = site.integers(4, "steps") or [1] * len(starts)
    found = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        indices = range(shape[axis])[start:end:step]
        stop: int | None = indices.stop
        if step < 0 and indices.stop < 0:
            stop = None
        found[axis % len(shape)] = slice(indices.start, stop, step)
    return found


def gather(site: Site) -> None:
    x = site.given(0)
    axis = site.integer("axis", 0) % len(x)
    indices = site.constant(1)
    if indices is None:
        site.pin(x[axis], "looks up along this axis")
        middle = site.given(1)
        if site.is_constant(0):
            for produced in range(len(x)):
                if produced != axis:
                    site.produce(0, produced)
    elif indices.ndim == 1:
        middle = [x[axis][indices]]
    else:
        site.pin(x[axis], "picks positions of this axis")
        middle = [fixed(size) for size in indices.shape]
    site.make([*x[:axis], *middle, *x[axis + 1 :]])


def pad(site: Site) -> None:
    x = site.given(0)
    pads = site.integers(1, "pads")
    axes = site.integers(3, "axes") or list(range(len(x)))
    if pads is None:
        return site.pin_all("pads by computed amounts")
    made = list(x)
    for position, axis in enumerate(axes):
        before, after = pads[position], pads[position + len(axes)]
        made[axis] = _padded(site, x[axis], before, after)
    return site.make(made)


def _padded(site: Site, labels: Labels, before: int, after: int) -> Labels:
    """Padding of the channels with a constant adds positions that stay."""
    if not before and not after:
        return labels
    mode = site.node.attributes.get_string("mode", "constant")
    if mode != "constant" or before < 0 or after < 0:
        site.pin(labels, "pads this axis")
        return fixed(labels.size + before + after)
    return np.concatenate([fixed(before), labels, fixed(after)])


def expand(site: Site) -> None:
    """A repeated value may be repeated less: such an axis takes on the channels it meets."""
    x, shape = site.given(0), site.made_shape()
    made: Axes = []
    for back in range(len(shape), 0, -1):
        here = x[-back] if back <= len(x) else None
        keeps = here is not None and here.size == shape[-back]
        made.append(here if here is not None and keeps else site.repeated(shape[-back]))
    site.make(made)


def constant_of_shape(site: Site) -> None:
    """One value everywhere: as wide as what it meets."""
    site.make([site.repeated(size) for size in site.made_shape()])


def tile(site: Site) -> None:
    repeats = site.integers(1, "repeats")
    if repeats is None:
        return site.pin_all("repeats a computed number of times")
    return site.make([np.tile(x, n) for x, n in zip(site.given(0), repeats, strict=True)])


INDEXING: dict[str, Rule] = {
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "Pad": pad,
    "Expand": expand,
    "ConstantOfShape": constant_of_shape,
    "Tile": tile,
}
