"""Whether the claimed interval holds on samples that nobody has seen.

    python -m benchmarks.coverage --corpus DIR --recipes FILE [--seeds N] [--by RECIPE]

For each seed other samples of one pool calibrate, select and report; the result's true drop is
then taken on all the rest of the pool, at least 1,000 samples. The interval is a 95 % one: its
upper end may lie below the truth in one case of twenty.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from benchmarks import tasks
from benchmarks.product import CallFailed, Feed, automatic, compress, feeds, untimed
from benchmarks.rows import Results, Row, about_this_machine
from worker.compression import PRESETS, graph

POOL, SEEDS, LEVEL = 1100, 30, 0.05
SAMPLES = {"digits": 128}


@dataclass(frozen=True)
class Pool:
    """A model, many samples for it, and its answers to each of them."""

    model: Path
    samples: list[Feed]
    answers: list[list[np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    tasks.add_arguments(parser, models=["digits", "efficientnet_lite0", "minilm"])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--by", default="auto", choices=list(PRESETS))
    given = parser.parse_args()
    results = Results(given.results)
    results.add(about_this_machine())
    for name in given.models:
        key = {"model": name, "recipe": given.by}
        missing = [
            seed
            for seed in range(given.seeds)
            if not results.found(bench="coverage", seed=seed, **key)
        ]
        if missing:
            pool = pooled(given, name)
            for seed in missing:
                row = measured(pool, SAMPLES.get(name, tasks.SAMPLES), given.by, seed)
                results.add({"bench": "coverage", **key, "seed": seed} | row)
        results.add(key | summary(results.found(bench="coverage", **key)))


def pooled(given: argparse.Namespace, name: str) -> Pool:
    model, _ = tasks.files(given, name)
    if name == "digits":
        images = (load_digits().images / 16).astype(np.float32).reshape(-1, 1, 1, 8, 8)
        samples = [{"x": image} for image in images]
    else:
        samples = feeds(tasks.corpus(given).feeds(name, POOL))
    return Pool(model, samples, answers(model, samples))


def answers(model: Path, samples: list[Feed]) -> list[list[np.ndarray]]:
    session = graph.session(model)
    return [session.run(None, feed) for feed in samples]


def measured(pool: Pool, count: int, by: str, seed: int) -> Row:
    """One seed: what was claimed, and what is true on the rest of the pool."""
    order = np.random.default_rng(seed).permutation(len(pool.samples))
    drawn, rest = order[:count], order[count:]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "samples.npz"
        given = {f"{n}|{k}": v for n, i in enumerate(drawn) for k, v in pool.samples[i].items()}
        np.savez(file, **given)
        out = Path(place) / "out"
        try:
            if by == "auto":
                run = compress(pool.model, out, automatic("latency", seed=seed), file)
            else:
                run = untimed(pool.model, out, {**PRESETS[by].model_dump(), "seed": seed}, file)
        except CallFailed as failure:
            return {"error": str(failure)}
        got = answers(run.model, [pool.samples[i] for i in rest])
    expected = [pool.answers[i] for i in rest]
    outputs = run.report["fidelity"]["outputs"]
    found = [
        claim(output, [one[place] for one in expected], [one[place] for one in got])
        for place, output in enumerate(outputs)
        if output["kind"] in DROPS and output["interval"]
    ]
    unchanged = run.report["after"]["bytes"] == run.report["before"]["bytes"]
    return {
        "outcome": run.report["verdict"]["outcome"], "unseen": len(rest), "outputs": found,
        "exceeded": any(one["true_drop"] > one["upper"] for one in found),
        "unchanged": unchanged, **run.watch,
    }  # fmt: skip


def claim(output: Any, expected: list[np.ndarray], got: list[np.ndarray]) -> Row:
    true = DROPS[output["kind"]](expected, got)
    return {
        "output": output["name"], "claimed_drop": output["drop"],
        "upper": output["interval"][1], "true_drop": round(true, 6),
    }  # fmt: skip


def changed_answers(expected: list[np.ndarray], got: list[np.ndarray]) -> float:
    same = [a.argmax(-1) == b.argmax(-1) for a, b in zip(expected, got, strict=True)]
    return float(1 - np.mean(np.concatenate([one.reshape(-1) for one in same])))


def lost_cosine(expected: list[np.ndarray], got: list[np.ndarray]) -> float:
    """1 less the mean cosine over the last axis."""
    cosines = []
    for a, b in zip(expected, got, strict=True):
        x, y = a.astype(np.float64), b.astype(np.float64)
        norms = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
        cosines.append(((x * y).sum(-1) / np.maximum(norms, 1e-30)).reshape(-1))
    return float(1 - np.mean(np.concatenate(cosines)))


DROPS: dict[str, Callable[[list[np.ndarray], list[np.ndarray]], float]] = {
    "class": changed_answers,
    "embedding": lost_cosine,
}


def summary(rows: list[Row]) -> Row:
    ran = [row for row in rows if "error" not in row]
    changed = [row for row in ran if not row["unchanged"]]
    exceeded = sum(row["exceeded"] for row in changed)
    return {
        "bench": "coverage_summary", "seeds": len(rows), "errors": len(rows) - len(ran),
        "changed_models": len(changed), "exceeded": exceeded, "level": LEVEL,
        "held": exceeded <= LEVEL * len(changed),
    }  # fmt: skip


if __name__ == "__main__":
    main()
