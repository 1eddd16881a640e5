"""See the package's docstring."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import peers, tasks
from benchmarks.int8_speed import exported
from benchmarks.peers.contestants import CONTESTANTS, environments_folder, make
from benchmarks.product import CallFailed, Feed, automatic, compress, feeds
from benchmarks.rows import Results, Row, about_this_machine, watched
from worker.compression import CompressionError, graph
from worker.compression.benchmark import host_quiet, race

NETWORKS = ("ResNet-50", "MobileNetV2")
IMAGE = (1, 3, 224, 224)
SAMPLES, HELD_OUT = 32, 16
OURS = "modelpress"
LEAST_RATIO, LEAST_SQNR = 0.97, 20.0
RACE_SECONDS = 60.0


@dataclass(frozen=True)
class Subject:
    """A model with its samples; `corpus` judges it, else SQNR on `unseen` does."""

    name: str
    model: Path
    calibration: Path
    timed: Feed
    corpus: tasks.Corpus | None = None
    unseen: tuple[Feed, ...] = ()

    @property
    def recipe(self) -> Mapping[str, object] | str:
        # Random weights have no answers that could be kept: there the method is compared.
        return automatic("latency") if self.corpus else "int8"


def main() -> None:
    parser = argparse.ArgumentParser(description=peers.__doc__)
    tasks.add_arguments(parser)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--work", type=Path, help="keeps what was made; a later run goes on")
    parser.add_argument("--environments", type=Path, default=environments_folder())
    parser.add_argument("--only-make", action="store_true", help="the peers' files, no race")
    given = parser.parse_args()
    results = Results(given.results)
    results.add(about_this_machine())
    with tempfile.TemporaryDirectory() as folder:
        work = (given.work or Path(folder)).resolve()
        for subject in subjects(given, work):
            if not results.found(bench="peers_summary", model=subject.name):
                compared(subject, work / subject.name, given, results)


def subjects(given: argparse.Namespace, work: Path) -> Iterator[Subject]:
    for name in given.networks:
        yield network(name, work / name)
    corpus = tasks.corpus(given)
    for name in given.models:
        file = corpus.feeds(name)
        ordered = sorted(feeds(file), key=lambda feed: sum(v.size for v in feed.values()))
        yield Subject(name, corpus.model(name), file, ordered[len(ordered) // 2], corpus)


def network(name: str, folder: Path) -> Subject:
    folder.mkdir(parents=True, exist_ok=True)
    model, file = folder / f"{name}.onnx", folder / "samples.npz"
    drawn = np.random.default_rng(0).standard_normal((SAMPLES + HELD_OUT, *IMAGE), np.float32)
    if not model.exists():
        exported(name, folder)
        np.savez(file, **{f"{n}|x": sample for n, sample in enumerate(drawn[:SAMPLES])})
    unseen = tuple({"x": sample} for sample in drawn[SAMPLES:])
    return Subject(name, model, file, unseen[0], unseen=unseen)


def compared(subject: Subject, work: Path, given: argparse.Namespace, results: Results) -> None:
    made: dict[str, tuple[Path, Row]] = {}
    for who in CONTESTANTS:
        file, told = make(
            who, subject.model, subject.calibration, work=work, environments=given.environments
        )
        made[who.name] = file, told | quality(subject, file, told)
        print(subject.name, who.name, made[who.name][1], file=sys.stderr, flush=True)
    if given.only_make:
        return
    made[OURS] = ours(subject, work / OURS)
    with watched() as watch:
        raced = times(subject, {name: file for name, (file, _) in made.items()})
    rows = [
        {"bench": "peers", "model": subject.name, "who": name} | raced[name] | told
        for name, (_, told) in made.items()
    ]
    for row in rows:
        results.add(row | {"quiet": watch["quiet"]})
    results.add(summary(subject.name, rows) | {"quiet": watch["quiet"]})


def ours(subject: Subject, out: Path) -> tuple[Path, Row]:
    """Our result and what was told of it; one that lies there already is taken."""
    told: Row = {}
    if not (out / "report.json").exists():
        try:
            run = compress(subject.model, out, subject.recipe, subject.calibration)
        except CallFailed as failure:
            return out / "model.onnx", {"error": str(failure), "kept": False}
        told["made_in"] = run.watch["seconds"]
    verdict = json.loads((out / "report.json").read_text())["verdict"]
    told |= {"outcome": verdict["outcome"], "sentence": verdict["sentence"]}
    return out / "model.onnx", told | judged(subject, out / "model.onnx")


def times(subject: Subject, files: Mapping[str, Path]) -> dict[str, Row]:
    """What each file is faster than the original by; or that it does not load."""
    found: dict[str, Row] = {}
    loads: dict[str, Path] = {}
    for name, file in files.items():
        try:
            graph.session(file).run(None, dict(subject.timed))
        except Exception as failure:  # whatever ONNX Runtime raises; absent files too
            found[name] = {"error": f"does not run: {str(failure).splitlines()[0][:200]}"}
        else:
            loads[name] = file
    paths = [subject.model, *loads.values()]
    raced = race(paths, subject.timed, threads=1, quiet=host_quiet, max_seconds=RACE_SECONDS)
    for name, latency in zip(loads, raced, strict=True):
        found[name] = {
            "speedup": round(latency.speedup, 4), "interval": latency.interval,
            "verdict": latency.verdict,
            "bytes_ratio": round(files[name].stat().st_size / subject.model.stat().st_size, 4),
        }  # fmt: skip
    return found


def quality(subject: Subject, file: Path, told: Row) -> Row:
    """`judged`, once for each file that a peer made."""
    if "error" in told:
        return {"kept": False}
    known = file.with_suffix(".quality.json")
    if not known.exists():
        known.write_text(json.dumps(judged(subject, file)))
    found: Row = json.loads(known.read_text())
    return found


def judged(subject: Subject, file: Path) -> Row:
    """Whether the result keeps the bound: on the task, or by SQNR on unseen samples."""
    try:
        if subject.corpus is None:
            decibels = sqnr(subject.model, file, subject.unseen)
            return {"sqnr_db": round(decibels, 1), "kept": decibels >= LEAST_SQNR}
        task = subject.corpus.judged(subject.name, file)
    except (tasks.TaskFailed, CompressionError) as failure:
        return {"kept": False, "error": f"does not run: {str(failure)[:200]}"}
    return {"kept": task["drop"] <= tasks.BOUND, "task": task}


def sqnr(before: Path, after: Path, samples: Sequence[Feed]) -> float:
    """Of all outputs over all samples together, in dB."""
    sessions = [graph.session(path) for path in (before, after)]
    signal = noise = 0.0
    for feed in samples:
        expected, got = (session.run(None, feed) for session in sessions)
        for one, other in zip(expected, got, strict=True):
            signal += float(np.square(one, dtype=np.float64).sum())
            noise += float(np.square(one.astype(np.float64) - other).sum())
    return float(10 * np.log10(signal / max(noise, 1e-30)))


def summary(model: str, rows: Sequence[Row]) -> Row:
    """Our result against the fastest peer that keeps the bound; without one, the original."""
    own = next(row for row in rows if row["who"] == OURS)
    rivals = [row for row in rows if row["who"] != OURS and row["kept"] and "speedup" in row]
    best = max(rivals, key=lambda row: float(row["speedup"]), default=None)
    fastest = best["speedup"] if best else 1.0
    speedup = own.get("speedup", 0.0) if own["kept"] else 0.0
    return {
        "bench": "peers_summary", "model": model, "fastest_kept": best["who"] if best else None,
        "its_speedup": fastest, "our_speedup": speedup,
        "ratio": round(speedup / fastest, 4), "bar": LEAST_RATIO,
        "held": speedup / fastest >= LEAST_RATIO,
    }  # fmt: skip


if __name__ == "__main__":
    main()
