"""The pictures of a channel pruning: widths before and after, and error against width."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from markupsafe import Markup

from worker.compression.html import svg

SHOWN: Final = 40
# Errors below this are drawn as this: they are not felt.
FLOOR: Final = 1e-6
HEIGHT: Final = 34.0
TOP: Final = 5.0
BOTTOM: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class GroupRow:
    """One drawn group: two bars, a curve, and the words beside them."""

    name: str
    widths: str
    bars: Markup
    curve: Markup
    error: str


def group_rows(groups: Sequence[Mapping[str, Any]]) -> list[GroupRow]:
    """Groups in graph order; of more than there is room for, those that lost most."""
    lost = sorted(groups, key=lambda group: group["after"] - group["before"])[:SHOWN]
    shown = [group for group in groups if group in lost]
    widest = max((group["before"] for group in shown), default=1)
    worst = max((error for group in shown for _, error in group["errors"]), default=1.0)
    return [
        GroupRow(
            name=group["name"],
            widths=f"{group['before']} → {group['after']}",
            bars=_bars(group["before"] / widest, group["after"] / widest),
            curve=_curve(group, worst),
            error=f"{_error(group):.1e}",
        )
        for group in shown
    ]


def _bars(before: float, after: float) -> Markup:
    picture = svg.canvas(18, "channels before, over channels after")
    for y, kind, value in ((1, "before", before), (10, "after", after)):
        svg.bar(picture, (0, value), y, height=7, kind=kind)
    return svg.markup(picture)


def _curve(group: Mapping[str, Any], worst: float) -> Markup:
    """Error (logarithmic) against the share of channels kept, full width at the left."""
    points = [(1 - kept / group["before"], _y(error, worst)) for kept, error in group["errors"]]
    picture = svg.canvas(HEIGHT, f"error against width of {group['name']}")
    svg.line(picture, (0, BOTTOM), (1, BOTTOM), kind="axis")
    for start, end in pairwise(points):
        svg.line(picture, start, end, kind="front")
    place = 1 - group["after"] / group["before"]
    svg.dot(picture, place, _y(_error(group), worst), radius=4, kind="after")
    return svg.markup(picture)


def _error(group: Mapping[str, Any]) -> float:
    """The error at the chosen width, drawn between the points of the curve."""
    for (wide, low), (narrow, high) in pairwise(group["errors"]):
        if narrow <= group["after"] <= wide:
            share = (wide - group["after"]) / (wide - narrow)
            return float(low + share * (high - low))
    return 0.0


def _y(error: float, worst: float) -> float:
    high = math.log10(max(worst, 10 * FLOOR))
    low = math.log10(FLOOR)
    share = (math.log10(max(error, FLOOR)) - low) / (high - low)
    return BOTTOM - (BOTTOM - TOP) * min(share, 1.0)
