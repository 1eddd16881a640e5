"""What docs/benchmarks.md shows of each bench: title, bars, and a function for each column."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.rows import Row

Column = tuple[str, Callable[[Row], object]]


@dataclass(frozen=True)
class Table:
    """Rows of `bench`, one for each value of `key`."""

    bench: str
    key: tuple[str, ...]
    title: str
    text: str
    columns: tuple[Column, ...]


def of(name: str) -> Callable[[Row], object]:
    return lambda row: row[name]


def times(name: str) -> Callable[[Row], object]:
    return lambda row: f"{row[name]:.2f}x"


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def machine(row: Row) -> str:
    return "quiet" if row.get("quiet", row.get("all_quiet", False)) else "loaded"


def yes(name: str) -> Callable[[Row], object]:
    return lambda row: "yes" if row[name] else "no"


def names(name: str) -> Callable[[Row], object]:
    return lambda row: ", ".join(row[name]) or "none"


def speed(row: Row) -> str:
    low, high = row["interval"]
    return f"{row['speedup']:.2f}x [{low:.2f}, {high:.2f}]"


def drop(row: Row) -> str:
    """The task metric's loss; what the product could not know."""
    task: dict[str, Any] = row["task"]
    if "error" in task:
        return f"fails: {task['error']}"
    if task.get("unchanged"):
        return f"{task['metric']} unchanged"
    return (
        f"{task['metric']} {task['before']:.3f} → {task['after']:.3f} ({percent(task['drop'])})"
    )


def claim(row: Row) -> str:
    """Claimed drop with the upper end of its interval, else the SQNR."""
    if "error" in row:
        return ""
    ends = [one[1] for one in row["claimed_interval"] if one]
    if row["claimed_drop"] is None:
        return f"{row['claimed_sqnr_db']:.0f} dB" if row["claimed_sqnr_db"] else "identical"
    upto = f", at most {percent(max(ends))}" if ends else ""
    return f"{percent(row['claimed_drop'])}{upto}"


def outcome(row: Row) -> str:
    if "error" in row:
        return f"fails: {row['error']}"
    chosen = f": {row['chosen']}" if row.get("chosen") else ""
    return f"`{row['outcome']}`{chosen}"


def kept(row: Row) -> str:
    if "error" in row:
        return f"fails: {row['error']}"
    how = drop(row) if "task" in row else f"{row['sqnr_db']} dB"
    return how if row["kept"] else f"**lost**: {how}"


MODEL: Column = ("model", of("model"))
MACHINE: Column = ("machine", machine)

TABLES = (
    Table(
        "corpus_summary", ("objective",), "Automatic mode over the public models: yields",
        "*Faster*: at least 1.1x at no more than 1 % less of the task metric (bar: 5 of 8 with "
        "`objective: latency`). *Smaller*: at most half the bytes, not slower, same quality "
        "(bar: 8 of 8 with `objective: size`). None may be returned as better that is not; "
        "each under 300 s.",
        (
            ("objective", of("objective")),
            ("yield", lambda row: f"{row['yield']} of {row['models']} {row['kind']}"),
            ("bar", of("bar")),
            ("called better but is not", names("better_but_not")), ("crashed", names("errors")),
            ("longest, s", of("longest_seconds")), MACHINE,
        ),
    ),
    Table(
        "corpus", ("model", "objective"), "Automatic mode over the public models",
        "64 samples or fewer, as the corpus has them. *Claimed* is the report's drop with the "
        "end of its interval; *expected* what the pre-flight said of speed.",
        (
            MODEL, ("objective", of("objective")), ("outcome", outcome),
            ("speed-up", speed), ("expected", times("expected_speedup")),
            ("outside", lambda row: f"{row['outside']['speedup']:.2f}x"),
            ("bytes", times("bytes_ratio")), ("task metric", drop), ("claimed", claim),
            ("tried", of("evaluations")), ("s", of("seconds")), MACHINE,
        ),
    ),
    Table(
        "peers_summary", ("model",), "Against the fastest peer that keeps the bound",
        "Bar: at least 0.97 of the speed of the fastest peer whose result keeps the bound.",
        (
            MODEL, ("fastest peer that keeps the bound", of("fastest_kept")),
            ("its speed-up", times("its_speedup")), ("ours", times("our_speedup")),
            ("ratio", of("ratio")), ("held", yes("held")), MACHINE,
        ),
    ),
    Table(
        "peers", ("model", "who"), "Peers, all rows",
        "The task metric where there is one (bound: 1 %), else the SQNR of the outputs on "
        "unseen samples (bound: 20 dB). Those networks have random weights, which say much of "
        "speed and little of quality: there our preset `int8` is compared.",
        (
            MODEL, ("who", of("who")), ("speed-up", speed), ("bytes", times("bytes_ratio")),
            ("quality", kept), ("made in, s", of("made_in")), MACHINE,
        ),
    ),
    Table(
        "search_cost", ("model",), "What a search costs",
        "Bars: the digits net under 60 s, ResNet-18 at 224 pixels under 480 s, fewer than 50 "
        "evaluations.",
        (
            MODEL, ("outcome", outcome), ("s", of("seconds")), ("bar", of("bar_seconds")),
            ("evaluations", of("evaluations")), ("held", yes("held")), MACHINE,
        ),
    ),
    Table(
        "second_goal", ("model", "goal"), "Another goal on the same model",
        "Bar: less than 0.2 of the first run.",
        (
            MODEL, ("goal", of("goal")), ("chosen", of("chosen")), ("s", of("seconds")),
            ("CPU s", of("cpu_seconds")), ("of the first", of("share_of_first")),
            ("CPU of the first", of("cpu_share_of_first")), MACHINE,
        ),
    ),
    Table(
        "repeats_summary", ("model", "objective"), "One seed, many times",
        "Bar: at least 8 of 10 the same recipe, or speed-ups within 3 % of each other. *By "
        "hand*: files whose recipe, run by hand, gives other weights.",
        (
            MODEL, ("objective", of("objective")), ("repeats", of("repeats")),
            ("same recipe", of("same_recipe")), ("spread", of("spread_of_speedups")),
            ("held", yes("held")),
            ("by hand", lambda row: f"{len(row['by_hand_differ'])} of {row['by_hand']} differ"),
            MACHINE,
        ),
    ),
    Table(
        "coverage_summary", ("model", "recipe"), "Claimed intervals on unseen samples",
        "How often the true drop on at least 1,000 unseen samples lies above the interval, of "
        "the seeds that changed the model. Bar: no more than 5 %.",
        (
            MODEL, ("recipe", of("recipe")), ("seeds", of("seeds")),
            ("models changed", of("changed_models")), ("above", of("exceeded")),
            ("errors", of("errors")), ("held", yes("held")),
        ),
    ),
    Table(
        "int8_speed", ("network",), "The preset int8 on well-known networks", "Random weights.",
        (
            ("network", of("network")), ("speed-up", times("speedup")),
            ("bar", times("bar")), ("runs", of("runs")), MACHINE,
        ),
    ),
    Table(
        "int8", ("model",), "The preset int8 from outside",
        "Kernels counted by ONNX Runtime's own profile; the report's median latency over one "
        "taken outside.",
        (
            MODEL, ("int8 share of MACs", of("int8_macs_share")),
            ("bytes", times("bytes_ratio")),
            ("sizes exact", yes("sizes_exact")), ("speed-up", times("speedup")),
            ("p50 before", of("report_over_outside_before")),
            ("p50 after", of("report_over_outside_after")), MACHINE,
        ),
    ),
    Table(
        "calibration", ("who", "samples"), "Calibrate and quantize ResNet-50",
        "Bars: 4x of the bare inferences, 600 MB, no more memory for 320 samples.",
        (
            ("who", of("who")), ("samples", of("samples")),
            ("of the inferences", times("times_inferences")), ("peak, MB", of("peak_mb")),
            MACHINE,
        ),
    ),
    Table(
        "against_itself", ("model",), "A model against itself while another job runs",
        "Bar: never called faster or slower.",
        (
            MODEL, ("races", of("races")), ("verdicts", of("verdicts")),
            ("wrong", of("wrong")), ("other jobs", of("other_jobs")),
        ),
    ),
    Table(
        "overhead", (), "What the service adds to a job", "Bar: 0.7 s.",
        (
            ("through the service, s", of("service_seconds")),
            ("alone, s", of("alone_seconds")),
            ("added, s", of("overhead_seconds")),
        ),
    ),
    Table(
        "http_load", (), "Status requests", "One machine serves and asks.",
        (
            ("connections", of("connections")), ("a second", of("requests_per_second")),
            ("p50, ms", of("p50_ms")), ("p99, ms", of("p99_ms")),
        ),
    ),
    Table(
        "fuzz_uploads", (), "Damaged uploads", "Bar: no 5xx, no dead process.",
        (
            ("uploads", of("uploads")), ("answers", of("answers")), ("5xx", of("5xx")),
            ("deaths", of("deaths")),
        ),
    ),
)  # fmt: skip
