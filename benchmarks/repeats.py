"""One seed many times: the same recipe, or the same latency; and the recipe by hand again.

    python -m benchmarks.repeats --corpus DIR --recipes FILE [--models NAME ...] [--repeats N]

`reproduce.recipe` of the first result is run by hand, as are the recipes of the files on its
front: each must give the same weights, bit for bit.
"""

import argparse
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from benchmarks import tasks
from benchmarks.product import CallFailed, automatic, chosen, compress, untimed
from benchmarks.rows import Results, Row, about_this_machine

REPEATS, LEAST_SAME, NEAR = 10, 0.8, 1.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    tasks.add_arguments(parser, models=["digits", "minilm", "silero_vad"])
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--objective", default="latency", choices=["latency", "size"])
    given = parser.parse_args()
    results = Results(given.results)
    results.add(about_this_machine())
    for name in given.models:
        key = {"model": name, "objective": given.objective}
        model, calibration = tasks.files(given, name)
        for number in range(given.repeats):
            if not results.found(bench="repeats", repeat=number, **key):
                row = repeat(model, calibration, given.objective, by_hand=number == 0)
                results.add({"bench": "repeats", **key, "repeat": number} | row)
        results.add(key | summary(results.found(bench="repeats", **key)))


def repeat(model: Path, calibration: Path, objective: str, *, by_hand: bool) -> Row:
    with tempfile.TemporaryDirectory() as place:
        out = Path(place) / "out"
        try:
            run = compress(model, out, automatic(objective), calibration)
            again = reproduced(model, calibration, out, run.report) if by_hand else {}
        except CallFailed as failure:
            return {"error": str(failure)}
    latency = run.report["latency"][0]
    recipe = json.dumps(run.report["reproduce"]["recipe"]["passes"], sort_keys=True)
    return {
        "chosen": chosen(run.report).get("name"), "outcome": run.report["verdict"]["outcome"],
        "recipe": hashlib.sha256(recipe.encode()).hexdigest()[:12],
        "speedup": latency["speedup"], "latency_verdict": latency["verdict"],
        "result": run.report["reproduce"]["sha256"]["result"][:12], **run.watch, **again,
    }  # fmt: skip


def reproduced(model: Path, calibration: Path, out: Path, report: Mapping[str, Any]) -> Row:
    """Every file of the first run made once more by its explicit recipe."""
    made = {"model.onnx": report["reproduce"]["recipe"]}
    made |= {one["file"]: one["recipe"] for one in report["candidates"] if one["file"]}
    explicit = {file: recipe for file, recipe in made.items() if recipe["passes"] != "auto"}
    other = [
        file
        for number, (file, recipe) in enumerate(explicit.items())
        if weights(out / file)
        != weights(untimed(model, out / f"again-{number}", recipe, calibration).model)
    ]
    return {"by_hand": len(explicit), "by_hand_differ": other}


def weights(path: Path) -> str:
    """A digest of everything constant in the file: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    found = sorted(tensors(onnx.load(path).graph), key=lambda tensor: tensor.name)
    for tensor in found:
        digest.update(tensor.SerializeToString(deterministic=True))
    return digest.hexdigest()


def tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Initializers and constants, those in bodies of If and Loop included."""
    found = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                found.append(attribute.t)
            if attribute.type == onnx.AttributeProto.GRAPH:
                found += tensors(attribute.g)
    return found


def summary(rows: list[Row]) -> Row:
    ran = [row for row in rows if "error" not in row]
    recipes = Counter(row["recipe"] for row in ran)
    same = max(recipes.values(), default=0)
    speedups = [row["speedup"] for row in ran]
    spread = max(speedups, default=1.0) / min(speedups, default=1.0)
    first = next((row for row in ran if "by_hand" in row), {})
    return {
        "bench": "repeats_summary", "repeats": len(rows), "same_recipe": same,
        "different_recipes": len(recipes), "spread_of_speedups": round(spread, 4),
        "held": bool(ran) and (same >= LEAST_SAME * len(rows) or spread <= NEAR),
        "by_hand": first.get("by_hand"), "by_hand_differ": first.get("by_hand_differ"),
        "all_quiet": all(row["quiet"] for row in ran),
    }  # fmt: skip


if __name__ == "__main__":
    main()
