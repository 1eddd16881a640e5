"""The pictures of the report: before and after, intervals against their bound."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from worker.compression.benchmark import Latency
from worker.compression.html import svg, words
from worker.compression.recipe import Goal
from worker.compression.report import Report, Size

ROW: Final = 44.0
SPEED_KINDS: Final[dict[str, str]] = {
    "faster": "after", "equal": "after", "slower": "missed", "unreliable": "before",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row of a bar picture. `tail` is where a thin line behind the bar ends."""

    name: str
    words: str
    value: float
    kind: str
    tail: float = 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval."""

    name: str
    words: str
    value: float
    interval: tuple[float, float] | None
    kind: str


def bars(rows: Sequence[Bar], label: str) -> Markup:
    """Horizontal bars from zero, name and figure above each."""
    picture = svg.canvas(ROW * len(rows), label)
    largest = max((max(row.value, row.tail) for row in rows), default=0) or 1
    for index, row in enumerate(rows):
        y = ROW * index
        svg.text(picture, 0, y + 14, words=row.name)
        svg.text(picture, 1, y + 14, words=row.words, kind="figure")
        if row.tail > row.value:
            svg.line(
                picture,
                (row.value / largest, y + 28),
                (row.tail / largest, y + 28),
                kind="tail",
            )
        svg.bar(picture, (0, row.value / largest), y + 21, height=14, kind=row.kind)
    return svg.markup(picture)


def size_bars(before: Size, after: Size) -> Markup:
    """The files as they are, and as a download with zstd has them: only there zeros count."""
    sizes = [
        ("before", before.bytes, "before"),
        ("after", after.bytes, "after"),
        ("before, zstd-compressed", before.compressed_bytes, "before pale"),
        ("after, zstd-compressed", after.compressed_bytes, "after pale"),
    ]
    rows = [
        Bar(name=name, words=words.size(count), value=count, kind=kind)
        for name, count, kind in sizes
    ]
    label = f"size {words.size(before.bytes)} before, {words.size(after.bytes)} after"
    return bars(rows, label)


def latency_bars(latency: Latency) -> Markup:
    """Medians; the thin line behind reaches to the 90th percentile."""
    rows = [
        Bar(
            name=f"{kind}, median", words=words.milliseconds(part.p50), value=part.p50,
            kind=kind, tail=part.p90,
        )
        for kind, part in (("before", latency.before), ("after", latency.after))
    ]  # fmt: skip
    return bars(rows, "median latency: " + ", ".join(f"{r.name} {r.words}" for r in rows))


def accuracy_bars(report: Report) -> Markup:
    accuracy = report.accuracy
    if accuracy is None:
        return Markup()
    rows = [
        Bar(
            name="before", words=f"{accuracy.before:.4f}", value=accuracy.before, kind="before"
        ),
        Bar(name="after", words=f"{accuracy.after:.4f}", value=accuracy.after, kind="after"),
    ]
    return bars(rows, f"{accuracy.metric}: {rows[0].words} before, {rows[1].words} after")


def intervals(
    rows: Sequence[Estimate], label: str, *, bound: float, bound_words: str
) -> Markup:
    """Each figure as a dot on its interval, with the bound as a dashed line through all."""
    picture = svg.canvas(ROW * len(rows) + 22, label)
    ends = [end for row in rows for end in (*(row.interval or ()), row.value)]
    low, high = min(*ends, bound), max(*ends, bound)
    margin = (high - low) * 0.08 or 0.1
    low, span = low - margin, high - low + 2 * margin

    for index, row in enumerate(rows):
        y = ROW * index
        svg.text(picture, 0, y + 14, words=words.shortened(row.name, 26), title=row.name)
        svg.text(picture, 1, y + 14, words=row.words, kind="figure")
        svg.line(picture, (0, y + 30), (1, y + 30), kind="track")
        if row.interval is not None:
            start, end = ((value - low) / span for value in row.interval)
            svg.bar(picture, (start, end), y + 27, height=6, kind=f"{row.kind} pale")
        svg.dot(picture, (row.value - low) / span, y + 30, radius=6, kind=row.kind)
    place = (bound - low) / span
    for index in range(len(rows)):
        svg.line(picture, (place, ROW * index + 20), (place, ROW * index + 40), kind="bound")
    svg.text(picture, place, ROW * len(rows) + 14, words=bound_words, kind="small")
    return svg.markup(picture)


def speedup_interval(latencies: Sequence[Latency]) -> Markup:
    if not latencies:
        return Markup()
    rows = [
        Estimate(
            name=setting(one), words=f"{words.times(one.speedup)} · {one.verdict}",
            value=one.speedup, interval=one.interval, kind=SPEED_KINDS[one.verdict],
        )
        for one in latencies
    ]  # fmt: skip
    label = "speed-up: " + "; ".join(f"{row.name} {row.words}" for row in rows)
    return intervals(rows, label, bound=1, bound_words="1× = as fast as before")


# Beside the speed-up there is room for no more.
_LONGEST_SHAPES = 20


def setting(latency: Latency) -> str:
    """Threads and input shapes of a measurement, in a few words."""
    threads = "1 thread" if latency.threads == 1 else f"{latency.threads} threads"
    shapes = ", ".join(
        dict.fromkeys("×".join(map(str, shape)) for shape in latency.shapes.values())
    )
    shapes = words.shortened(shapes, _LONGEST_SHAPES)
    return f"{threads}, {shapes}" if shapes else threads


def drop_interval(report: Report) -> Markup:
    """What was lost against the bound: by labels where there are some, else by output."""
    rows = drops(report)
    if not rows:
        return Markup()
    bound = report.goal.max_drop
    label = "drop: " + "; ".join(f"{row.name} {row.words}" for row in rows)
    return intervals(rows, label, bound=bound, bound_words=f"bound {words.percent(bound)}")


def drops(report: Report) -> list[Estimate]:
    goal = report.goal
    if report.accuracy is not None:
        accuracy = report.accuracy
        return [_drop("drop of " + accuracy.metric, accuracy.drop, accuracy.interval, goal)]
    if report.fidelity is None:
        return []
    return [
        _drop(output.name, output.drop, output.interval, goal)
        for output in report.fidelity.outputs
        if output.drop is not None
    ]


def _drop(name: str, drop: float, interval: tuple[float, float] | None, goal: Goal) -> Estimate:
    kind = "after" if drop <= goal.max_drop else "missed"
    return Estimate(
        name=name, words=words.percent(drop), value=drop, interval=interval, kind=kind
    )


def sqnr_bars(report: Report) -> Markup:
    """Signal to noise of every output whose values matter, on its worst channel."""
    outputs = [] if report.fidelity is None else report.fidelity.outputs
    rows = []
    for output in outputs:
        worst = output.worst_channel.sqnr_db if output.worst_channel else output.sqnr_db
        if output.kind != "value" or worst is None:
            continue
        kind = "after" if worst >= report.goal.min_sqnr_db else "missed"
        rows.append(
            Estimate(
                name=f"{output.name}, worst channel", words=words.decibel(worst),
                value=worst, interval=None, kind=kind,
            )
        )  # fmt: skip
    if not rows:
        return Markup()
    bound = report.goal.min_sqnr_db
    label = "SQNR: " + "; ".join(f"{row.name} {row.words}" for row in rows)
    return intervals(rows, label, bound=bound, bound_words=f"bound {words.decibel(bound)}")
