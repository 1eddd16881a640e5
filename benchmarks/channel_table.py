"""The rows of benchmarks.channel_pruning as a page: a table for each model and amount."""

from collections.abc import Iterator, Sequence

from benchmarks.rows import Row
from benchmarks.tasks import METRICS

OURS = "obs + refit"
# By this share of an amount a model may lose more or less.
_COVERED = 0.2
_HEAD = """# Channel pruning of the public models

Written by `python -m benchmarks.channel_pruning --corpus DIR --recipes FILE --results FILE
--peer PYTHON --page FILE`, which goes on where it was stopped. Every criterion with and without
refit, and onnxsim's structured pruning (`l2`, `wanda`) at the same share of multiplications,
with 128 unlabelled samples or all that the corpus records. *SQNR* and *metric* are of the
test split, which nothing was pruned by; the metric of the original stands behind the slash.
A criterion that a model's table lacks was not tried there: `l1` and `activation` stand for the
others where pruning takes minutes.
*Latency* is after / before in milliseconds on one thread, both timed in turn; the machine was
shared, so only their ratio says something, and little below 5 %.
"""


def page(rows: Sequence[Row]) -> str:
    """All rows as markdown, the bad ones too."""
    mine = [row for row in rows if row.get("bench") == "channel_pruning"]
    parts = [_HEAD, *_verdicts(mine), *_coverage(mine)]
    for name in METRICS:
        for amount in sorted({row["amount"] for row in mine}):
            parts += _table(
                name, amount, [r for r in mine if (r["model"], r["amount"]) == (name, amount)]
            )
    return "\n".join(parts) + "\n"


def _verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """For each model and amount: ours against the peer, and what the refit brings."""
    yield (
        "| model | amount | MACs saved | SQNR, without refit | best of onnxsim | metric, ours "
        "| of onnxsim | refit gains |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name in METRICS:
        for amount in sorted({row["amount"] for row in rows}):
            found = {
                row["way"]: row
                for row in rows
                if (row["model"], row["amount"]) == (name, amount) and "sqnr_db" in row
            }
            if OURS not in found or "obs" not in found:
                continue
            ours, plain = found[OURS], found["obs"]
            peers = [row for way, row in found.items() if way.startswith("onnxsim")]
            best = max((row["sqnr_db"] for row in peers), default=None)
            task = max((row["metric"] for row in peers), default=None)
            yield (
                f"| {name} | {amount:g} | {ours['macs_saved']:.3f} "
                f"| {ours['sqnr_db']:.1f}, {plain['sqnr_db']:.1f} | {_or_dash(best, '.1f')} "
                f"| {ours['metric']:.3f} / {ours['metric_before']:.3f} "
                f"| {_or_dash(task, '.3f')} | {ours['sqnr_db'] - plain['sqnr_db']:+.1f} dB |"
            )
    yield ""


def _coverage(rows: Sequence[Row]) -> Iterator[str]:
    """How many models lose about as much as they were asked to."""
    for amount in sorted({row["amount"] for row in rows}):
        saved = {
            row["model"]: row["macs_saved"]
            for row in rows
            if (row["way"], row["amount"]) == (OURS, amount)
        }
        near = [name for name, share in saved.items() if abs(share / amount - 1) <= _COVERED]
        yield (
            f"At amount {amount:g}, {len(near)} of {len(saved)} models that were measured lose "
            f"{(1 - _COVERED) * amount:g} to {(1 + _COVERED) * amount:g} of their MACs."
        )
    yield ""


def _table(name: str, amount: float, rows: Sequence[Row]) -> Iterator[str]:
    if not rows:
        return
    yield f"\n## {name}, amount {amount:g}\n"
    yield f"Measured at commit {', '.join(dict.fromkeys(row['commit'] for row in rows))}.\n"
    yield "| way | MACs saved | latency, ms | SQNR, dB | metric | seconds |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        if "error" in row:
            yield f"| {row['way']} | {row['error']} | | | | |"
            continue
        noisy = "" if row["quiet"] else " (busy)"
        seconds = row.get("prune_seconds", "")
        yield (
            f"| {row['way']} | {row['macs_saved']:.3f} "
            f"| {row['ms_after']:.2f} / {row['ms_before']:.2f}{noisy} | {row['sqnr_db']:.1f} "
            f"| {row['metric']:.3f} / {row['metric_before']:.3f} | {seconds} |"
        )


def _or_dash(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)
