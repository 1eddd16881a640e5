"""Another goal on the same model and data: what the second search costs of the first.

    python -m benchmarks.second_goal --corpus DIR --recipes FILE [--models NAME ...]

The first run fills an empty cache (`objective: latency`); then `objective: size` and a wider
bound start from it. CPU seconds count only work, wall seconds also what waits for quiet.
"""

import argparse
import tempfile
from pathlib import Path

from benchmarks import tasks
from benchmarks.product import CallFailed, automatic, chosen, compress
from benchmarks.rows import Results, Row, about_this_machine

BAR = 0.20
GOALS = {"size": {"objective": "size"}, "wider bound": {"max_drop": 0.03}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    tasks.add_arguments(parser, models=["digits", "minilm", "ppocr4_rec"])
    given = parser.parse_args()
    results = Results(given.results)
    results.add(about_this_machine())
    for name in given.models:
        if results.found(bench="second_goal", model=name):
            continue
        for row in measured(name, *tasks.files(given, name)):
            results.add(row)


def measured(name: str, model: Path, calibration: Path) -> list[Row]:
    """The first run, then each other goal with its share of the first one's time."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number, (goal, recipe) in enumerate(recipes().items()):
            row: Row = {"bench": "second_goal", "model": name, "goal": goal, "bar": BAR}
            try:
                run = compress(
                    model, folder / str(number), recipe, calibration, cache=folder / "cache"
                )
            except CallFailed as failure:
                rows.append(row | {"error": str(failure)})
                continue
            row |= {"chosen": chosen(run.report).get("name")} | run.watch
            if rows and "error" not in rows[0]:
                row["share_of_first"] = round(row["seconds"] / rows[0]["seconds"], 3)
                row["cpu_share_of_first"] = round(
                    row["cpu_seconds"] / rows[0]["cpu_seconds"], 3
                )
            rows.append(row)
    return rows


def recipes() -> dict[str, Row]:
    first = automatic("latency")
    others = {goal: first | {"goal": first["goal"] | words} for goal, words in GOALS.items()}
    return {"latency": first, **others}


if __name__ == "__main__":
    main()
