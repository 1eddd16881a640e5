"""The picture of what the search tried: latency against loss, the circle's area is the size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final
from xml.etree import ElementTree as ET

from markupsafe import Markup

from worker.compression.html import svg, words
from worker.compression.recipe import Goal
from worker.compression.report import Candidate

HEIGHT: Final = 320.0
TOP: Final = 24.0
BOTTOM: Final = HEIGHT - 40
EDGES: Final = (0.08, 0.94)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A candidate in the picture; `number` is its row in the table below."""

    number: int
    candidate: Candidate
    latency: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From figures to places: `right` and `high` are the largest shown."""

    left: float
    right: float
    low: float
    high: float

    def x(self, latency: float) -> float:
        start, end = EDGES
        return start + (end - start) * (latency - self.left) / (self.right - self.left)

    def y(self, loss: float) -> float:
        """Place of a loss; one beyond the scale stands at the upper edge."""
        share = (min(loss, self.high) - self.low) / (self.high - self.low)
        return BOTTOM - (BOTTOM - TOP) * share


def front_chart(candidates: Sequence[Candidate], goal: Goal) -> Markup:
    """Candidates by median latency and drop, or without drops by SQNR (less is higher)."""
    by_drop = any(candidate.drop is not None for candidate in candidates)
    points = _points(candidates, by_drop=by_drop)
    if len(points) < 2:
        return Markup()
    bound = goal.max_drop if by_drop else -goal.min_sqnr_db
    scale = _scale(points, bound)
    picture = svg.canvas(HEIGHT, f"{len(points)} candidates by latency and loss")
    _axes(picture, scale, bound, by_drop=by_drop)
    _front(picture, scale, points)
    largest = max(point.candidate.bytes or 0 for point in points) or 1
    for point in sorted(points, key=lambda one: -(one.candidate.bytes or 0)):
        _circle(picture, scale, point, largest=largest)
    return svg.markup(picture)


def _points(candidates: Sequence[Candidate], *, by_drop: bool) -> list[Point]:
    points = []
    for number, candidate in enumerate(candidates, start=1):
        loss = candidate.drop if by_drop else candidate.sqnr_db
        if candidate.latency_ms is None or loss is None:
            continue
        loss = loss if by_drop else -loss
        points.append(
            Point(number=number, candidate=candidate, latency=candidate.latency_ms, loss=loss)
        )
    return points


def _scale(points: Sequence[Point], bound: float) -> Scale:
    """Room for every latency; losses far beyond the bound are cut: they flatten the rest."""
    latencies = [point.latency for point in points]
    losses = [point.loss for point in points]
    low, high = min(*losses, 0 if bound >= 0 else bound), max(*losses, bound)
    if bound > 0:
        high = min(high, 3 * bound)
    pad = (max(latencies) - min(latencies)) * 0.08 or max(latencies) * 0.1 or 1
    room = (high - low) * 0.08 or 0.01
    return Scale(
        left=min(latencies) - pad, right=max(latencies) + pad, low=low - room, high=high + room
    )


def _axes(picture: ET.Element, scale: Scale, bound: float, *, by_drop: bool) -> None:
    svg.line(picture, (0, BOTTOM), (1, BOTTOM), kind="axis")
    loss = "↑ drop" if by_drop else "↓ SQNR of the worst channel"
    svg.text(picture, 0, 12, words=loss, kind="small")
    svg.text(picture, 1, HEIGHT - 6, words="median latency →", kind="small")
    for latency in (scale.left, (scale.left + scale.right) / 2, scale.right):
        svg.text(
            picture, scale.x(latency), BOTTOM + 16,
            words=words.milliseconds(latency), kind="small",
        )  # fmt: skip
    place = scale.y(bound)
    svg.line(picture, (0, place), (1, place), kind="bound")
    limit = words.percent(bound) if by_drop else words.decibel(-bound)
    svg.text(picture, 0, place - 6, words=f"bound {limit}", kind="small")


def _front(picture: ET.Element, scale: Scale, points: Sequence[Point]) -> None:
    front = sorted((p for p in points if p.candidate.on_front), key=lambda p: p.latency)
    for one, other in pairwise(front):
        start, end = ((scale.x(point.latency), scale.y(point.loss)) for point in (one, other))
        svg.line(picture, start, end, kind="front")


def _circle(picture: ET.Element, scale: Scale, point: Point, *, largest: int) -> None:
    candidate = point.candidate
    kind = "chosen" if candidate.chosen else "after" if candidate.within_bound else "missed"
    radius = 7 + 13 * math.sqrt((candidate.bytes or 0) / largest)
    x, y = scale.x(point.latency), scale.y(point.loss)
    title = (
        f"{candidate.name}: {words.milliseconds(point.latency)}, {words.size(candidate.bytes)}"
    )
    svg.dot(picture, x, y, radius=radius, kind=kind, title=title)
    svg.text(picture, x, y + 4, words=str(point.number), kind="number", anchor="middle")
