"""Convolutions: who makes channels and who sums over them."""

import numpy as np

from worker.compression.channels.atoms import Labels, fixed
from worker.compression.channels.site import Rule, Site


def by_whole_groups(groups: int, inputs_per_group: int) -> bool:
    """Whether a grouped convolution loses whole groups, or the same channels of every group.

    Depthwise is the case of one input per group. Whichever way has more units is finer.
    """
    return groups >= inputs_per_group


def conv(site: Site) -> None:
    if not site.is_constant(1):
        return site.pin_all(f"has a weight that {site.made_by(1)} computes")
    x, w = site.given(0), site.given(1)
    _hold_space(site, [*x[2:], *w[2:]])
    groups = site.integer("group", 1)
    site.produce(1, 0)
    if groups == 1:
        site.join(w[1], x[1])
        site.consume(1, 1)
    elif by_whole_groups(groups, w[1].size):
        whole = _tie_whole_groups(site, x[1], groups)
        site.join(w[0].reshape(groups, -1), whole)
        site.pin(w[1], "keeps the inputs of each of its groups")
    else:
        same = _tie_across_groups(site, x[1], groups)
        site.join(w[1], same)
        _tie_across_groups(site, w[0], groups)
        site.consume(1, 1)
    return _finish(site, w[0])


def conv_transpose(site: Site) -> None:
    if not site.is_constant(1):
        return site.pin_all(f"has a weight that {site.made_by(1)} computes")
    x, w = site.given(0), site.given(1)
    _hold_space(site, [*x[2:], *w[2:]])
    groups = site.integer("group", 1)
    site.join(w[0], x[1])
    if groups > 1 and by_whole_groups(groups, w[0].size // groups):
        whole = _tie_whole_groups(site, x[1], groups)
        site.pin(w[1], "keeps the outputs of each of its groups")
        site.produce(1, 0)
        return _finish(site, np.repeat(whole.ravel(), w[1].size))
    _tie_across_groups(site, x[1], groups)
    site.produce(1, 1)
    site.consume(1, 0)
    return _finish(site, np.tile(w[1], groups))


def normalization(site: Site) -> None:
    """BatchNorm and InstanceNorm: every parameter belongs to a channel."""
    x = site.given(0)
    for index in range(1, len(site.node.inputs)):
        for labels in site.given(index):
            site.join(labels, x[1])
    site.make_fixed()
    site.make(list(x))


def pool(site: Site) -> None:
    """Pooling over space keeps the channels."""
    x = site.given(0)
    _hold_space(site, x[2:])
    site.make_fixed()
    site.make([x[0], x[1], *(fixed(size) for size in site.made_shape()[2:])])


def _tie_whole_groups(site: Site, channels: Labels, groups: int) -> Labels:
    """Tie all channels of a group; gives one label per group, as a column."""
    table = channels.reshape(groups, -1)
    site.join(table, table[:, :1])
    return table[:, :1]


def _tie_across_groups(site: Site, channels: Labels, groups: int) -> Labels:
    """Tie channel k of every group; gives one label per k."""
    table = channels.reshape(groups, -1)
    site.join(table, table[:1])
    first: Labels = table[0]
    return first


def _hold_space(site: Site, axes: list[Labels]) -> None:
    for labels in axes:
        site.pin(labels, "works over this axis")


def _finish(site: Site, channels: Labels) -> None:
    if site.name(2) is not None:
        site.join(site.given(2)[0], channels)
    space = [fixed(size) for size in site.made_shape()[2:]]
    site.make([site.given(0)[0], channels, *space])


CONVOLUTION: dict[str, Rule] = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "BatchNormalization": normalization,
    "InstanceNormalization": normalization,
    "MaxPool": pool,
    "AveragePool": pool,
    "LpPool": pool,
    "GlobalAveragePool": pool,
    "GlobalMaxPool": pool,
    "GlobalLpPool": pool,
}
