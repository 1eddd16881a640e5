"""The pictures of the layers: time before and after, and the error that each adds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from worker.compression.html import svg, words
from worker.compression.report import Layer, LayerCost

SHOWN: Final = 24


@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One drawn layer: two bars, a place on the SQNR track, and the words beside them."""

    layer: Layer
    cost: str
    bars: Markup
    track: Markup


def layer_rows(layers: Sequence[Layer]) -> list[LayerRow]:
    """The costliest layers, by time where it is known, else by bytes of weights."""
    shown = costliest(layers)
    timed = any(layer.before.ms for layer in shown)
    costs = [(_cost(one.before, timed=timed), _cost(one.after, timed=timed)) for one in shown]
    largest = max((max(pair) for pair in costs), default=0) or 1
    loudest = max((layer.sqnr_db or 0 for layer in shown), default=0) or 1
    return [
        LayerRow(
            layer=layer,
            cost=cost_words(layer, timed=timed),
            bars=_bars(before / largest, after / largest),
            track=_track(layer.sqnr_db, loudest=loudest),
        )
        for layer, (before, after) in zip(shown, costs, strict=True)
    ]


def has_errors(layers: Sequence[Layer]) -> bool:
    return any(layer.sqnr_db is not None for layer in layers)


def costliest(layers: Sequence[Layer]) -> list[Layer]:
    ranked = sorted(layers, key=lambda layer: (layer.before.ms or 0, layer.before.bytes))
    return ranked[::-1][:SHOWN]


def cost_words(layer: Layer, *, timed: bool) -> str:
    written = _milliseconds if timed else _bytes
    return f"{written(layer.before)} → {written(layer.after)}"


def _cost(cost: LayerCost | None, *, timed: bool) -> float:
    if cost is None:
        return 0
    return (cost.ms or 0) if timed else cost.bytes


def _milliseconds(cost: LayerCost | None) -> str:
    return "gone" if cost is None else words.milliseconds(cost.ms)


def _bytes(cost: LayerCost | None) -> str:
    return "gone" if cost is None else words.size(cost.bytes)


def _bars(before: float, after: float) -> Markup:
    picture = svg.canvas(18, "cost before, over cost after")
    for y, kind, value in ((1, "before", before), (10, "after", after)):
        if value:
            svg.bar(picture, (0, value), y, height=7, kind=kind)
    return svg.markup(picture)


def _track(sqnr_db: float | None, *, loudest: float) -> Markup:
    picture = svg.canvas(18, f"SQNR {words.decibel(sqnr_db)}")
    svg.line(picture, (0, 9), (1, 9), kind="track")
    if sqnr_db is not None:
        place = 0.04 + 0.92 * min(max(sqnr_db / loudest, 0), 1)
        svg.dot(picture, place, 9, radius=5, kind="after")
    return svg.markup(picture)
