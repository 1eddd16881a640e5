"""Recurrent layers: a hidden unit is a row in every gate and a column of the recurrence."""

import numpy as np

from worker.compression.channels.atoms import Labels, fixed
from worker.compression.channels.site import Rule, Site

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(site: Site) -> None:
    if not (site.is_constant(1) and site.is_constant(2)):
        return site.pin_all(f"has a weight that {site.made_by(1)} computes")
    x, w, r = site.given(0), site.given(1), site.given(2)
    gates = GATES[site.node.op_type]
    hidden = r[2]
    site.join(w[1], np.tile(hidden, gates))
    site.join(r[1], np.tile(hidden, gates))
    site.join(w[2], x[-1])
    for index, times in ((3, 2 * gates), (7, 3)):
        if site.name(index) is not None:
            site.join(site.given(index)[1], np.tile(hidden, times))
    for index in (5, 6):
        if site.name(index) is not None:
            site.join(site.given(index)[-1], hidden)
    site.produce(1, 1)
    site.produce(2, 1)
    site.consume(1, 2)
    site.consume(2, 2)
    return _make(site, hidden)


def _make(site: Site, hidden: Labels) -> None:
    """Every output ends in the hidden units; the directions share their numbering."""
    for index in range(len(site.node.outputs)):
        shape = site.made_shape(index)
        if shape:
            site.make([*(fixed(size) for size in shape[:-1]), hidden], index)


RECURRENT: dict[str, Rule] = dict.fromkeys(GATES, recurrent)
