"""The automatic mode over the eight public models, judged by their own task metrics.

    python -m benchmarks.corpus --corpus DIR --recipes FILE [--objectives latency size]

The search never sees the task metric: the result is judged afterwards by the corpus' script,
and raced against the original once more, outside of the product's report.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import tasks
from benchmarks.product import CallFailed, automatic, chosen, compress, feeds
from benchmarks.rows import Results, Row, about_this_machine
from worker.compression.benchmark import host_quiet, race

FASTER, HALF = 1.1, 0.5
LEAST_FEWER_BYTES = 0.95
MOST_SECONDS = 300
BARS = {"latency": ("faster", 5), "size": ("smaller", 8)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    tasks.add_arguments(parser)
    parser.add_argument("--keep", type=Path, help="results stay here: --work of the peers")
    parser.add_argument("--objectives", nargs="*", default=list(BARS), choices=list(BARS))
    given = parser.parse_args()
    results = Results(given.results)
    results.add(about_this_machine())
    for objective in given.objectives:
        for name in given.models:
            key = {"bench": "corpus", "model": name, "objective": objective}
            if not results.found(**key):
                results.add(key | measured(given, name, objective))
        results.add(summary(results.found(bench="corpus", objective=objective), objective))


def measured(given: argparse.Namespace, name: str, objective: str) -> Row:
    """One model compressed, judged and raced; `error` where the product or the task failed."""
    corpus = tasks.corpus(given)
    model, calibration = tasks.files(given, name)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        try:
            run = compress(model, out, automatic(objective), calibration)
            task = corpus.judged(name, run.model)
        except (CallFailed, tasks.TaskFailed) as failure:
            return {"error": str(failure)}
        raced = {} if task.get("unchanged") else outside(model, calibration, run.model)
        if given.keep and objective == "latency":
            shutil.copytree(out, given.keep / name / "modelpress", dirs_exist_ok=True)
    row = told(run.report) | run.watch | {"task": task, "outside": raced}
    return row | judged(row, objective)


def told(report: Any) -> Row:
    """What the report claims."""
    latency = report["latency"][0]
    outputs = (report["fidelity"] or {"outputs": []})["outputs"]
    return {
        "outcome": report["verdict"]["outcome"],
        "sentence": report["verdict"]["sentence"],
        "chosen": chosen(report).get("name"),
        "speedup": latency["speedup"],
        "interval": latency["interval"],
        "latency_verdict": latency["verdict"],
        "bytes_ratio": report["after"]["bytes"] / report["before"]["bytes"],
        "claimed_drop": report["verdict"]["drop"],
        "claimed_sqnr_db": report["verdict"]["sqnr_db"],
        "claimed_interval": [one["interval"] for one in outputs],
        "samples": (report["fidelity"] or {}).get("samples"),
        "expected_speedup": (report["preflight"] or {}).get("expected_speedup"),
        "expected_seconds": (report["preflight"] or {}).get("seconds"),
        "evaluations": len(report["candidates"]),
    }


def outside(model: Path, samples: Path, result: Path) -> Row:
    """The result raced against the original on the feed of middle length."""
    ordered = sorted(feeds(samples), key=lambda feed: sum(map(_size, feed.values())))
    middle = ordered[len(ordered) // 2]
    (found,) = race([model, result], middle, threads=1, quiet=host_quiet)
    return {"speedup": found.speedup, "interval": found.interval, "verdict": found.verdict}


def judged(row: Row, objective: str) -> Row:
    """Whether it counts for the yields, and what is wrong where it is called better."""
    raced = row["outside"].get("speedup", 1.0)
    slower = row["outside"].get("verdict") == "slower"
    kept = row["task"]["drop"] <= tasks.BOUND
    faults = []
    if row["outcome"] == "better" and not kept:
        faults.append(f"the task metric lost {row['task']['drop']:.1%}")
    if row["outcome"] == "better" and objective == "latency" and row["outside"].get("interval"):
        faults += [f"{raced:.2f}x outside"] * (row["outside"]["interval"][1] < 1)
    if row["outcome"] == "better" and objective == "size":
        faults += ["hardly smaller"] * (row["bytes_ratio"] > LEAST_FEWER_BYTES)
        faults += ["slower"] * slower
    return {
        "faster": kept and raced >= FASTER,
        "smaller": kept and row["bytes_ratio"] <= HALF and not slower,
        "better_but_not": faults,
        "in_time": row["seconds"] < MOST_SECONDS,
    }


def summary(rows: list[Row], objective: str) -> Row:
    kind, bar = BARS[objective]
    ran = [row for row in rows if "error" not in row]
    return {
        "bench": "corpus_summary",
        "objective": objective,
        "models": len(rows),
        "yield": sum(row[kind] for row in ran),
        "kind": kind,
        "bar": bar,
        "errors": [row["model"] for row in rows if "error" in row],
        "better_but_not": [row["model"] for row in ran if row["better_but_not"]],
        "too_long": [row["model"] for row in ran if not row["in_time"]],
        "longest_seconds": max((row["seconds"] for row in ran), default=None),
        "all_quiet": all(row["quiet"] for row in ran),
    }


def _size(value: Any) -> int:
    return int(value.size)


if __name__ == "__main__":
    main()
