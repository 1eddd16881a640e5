"""Operators whose result depends on all positions of an axis: that axis stays."""

from worker.compression.channels.atoms import fixed
from worker.compression.channels.site import Axes, Rule, Site


def reduce(site: Site) -> None:
    x = site.given(0)
    axes = site.integers(1, "axes")
    if axes is None and site.name(1) is not None:
        return site.pin_all("reduces over computed axes")
    everything = not axes and not site.integer("noop_with_empty_axes", 0)
    gone = set(range(len(x))) if everything else {axis % len(x) for axis in axes or []}
    for axis in gone:
        site.pin(x[axis], "reduces over this axis")
    keep = site.integer("keepdims", 1)
    made: Axes = []
    for axis, labels in enumerate(x):
        if axis not in gone:
            made.append(labels)
        elif keep:
            made.append(fixed(1))
    return site.make(made)


def over_axis(site: Site) -> None:
    """Softmax, CumSum, ...: one axis stays, the others pass."""
    x = site.given(0)
    axis = site.integer("axis", -1)
    if site.node.op_type == "CumSum":
        given = site.constant(1)
        if given is None:
            return site.pin_all("sums over a computed axis")
        axis = int(given)
    site.pin(x[axis], "needs all of this axis")
    return site.make(list(x))


def over_last_axes(site: Site) -> None:
    """LayerNormalization and its kin: from `axis` on everything stays."""
    x = site.given(0)
    first = site.integer("axis", -1) % len(x)
    for index in range(len(site.node.inputs)):
        for labels in site.given(index)[first if index == 0 else 0 :]:
            site.pin(labels, "normalizes over this axis")
    site.make_fixed()
    site.make(list(x))


def arg(site: Site) -> None:
    """ArgMax and ArgMin."""
    x = site.given(0)
    axis = site.integer("axis", 0) % len(x)
    site.pin(x[axis], "needs all of this axis")
    middle = [fixed(1)] if site.integer("keepdims", 1) else []
    site.make([*x[:axis], *middle, *x[axis + 1 :]])


def top_k(site: Site) -> None:
    x = site.given(0)
    axis = site.integer("axis", -1) % len(x)
    site.pin(x[axis], "needs all of this axis")
    for index in range(2):
        size = site.made_shape(index)[axis] if site.made_shape(index) else 0
        site.make([*x[:axis], fixed(size), *x[axis + 1 :]], index)


_REDUCTIONS = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

REDUCTION: dict[str, Rule] = {
    **dict.fromkeys((f"Reduce{name}" for name in _REDUCTIONS.split()), reduce),
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "Hardmax", "LpNormalization", "CumSum"), over_axis
    ),
    "LayerNormalization": over_last_axes,
    "RMSNormalization": over_last_axes,
    "ArgMax": arg,
    "ArgMin": arg,
    "TopK": top_k,
}
