"""docs/benchmarks.md from JSON lines.

    python -m benchmarks.table FILE... > docs/benchmarks.md

The last row of a kind wins; bad rows are shown like good ones. Figures taken beside other work
are marked `loaded`: they stand for counts and kept quality, not for times.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.rows import ROOT, Row, read
from benchmarks.tables import TABLES, Table

HEAD = """# Benchmarks

`make bench` measures everything, `make bench-quick` in under 5 minutes what needs no corpus;
`python -m benchmarks --list` names the benches, `--only NAME` runs one. Each prints JSON lines
and may add them to a file (`--results FILE`); this page is written from such a file by
`python -m benchmarks.table docs/benchmarks/results.jsonl > docs/benchmarks.md`.

The corpus is a folder `DIR` with `public/NAME/model.onnx` and, made where they are missing,
`feeds/NAME.npz`; its script `recipes.py` computes task metrics that the product never sees:
`make bench ARGS="--corpus DIR --recipes DIR/recipes.py --recipes-python PYTHON"`. A full run
takes hours (30 seeds, 10 repeats); those benches take `--models`, and go on where their
`--results` end.

Speed-ups are of one thread and interleaved in one process; brackets are 95 % intervals.
*Machine* is `quiet` where other processes used less than 10 % of the cores meanwhile. Rows
marked `loaded` stand for counts and kept quality, not for times.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    rows = [row for file in given.files for row in read(file)]
    print(page(rows), end="")


def page(rows: list[Row]) -> str:
    parts = [HEAD, machine(rows)]
    parts += [section(table, found) for table in TABLES if (found := latest(table, rows))]
    return "\n".join([*parts, *others()])


def machine(rows: list[Row]) -> str:
    told = [row for row in rows if row.get("bench") == "environment"]
    if not told:
        return ""
    last = told[-1]
    versions = ", ".join(f"{name} {number}" for name, number in last["versions"].items())
    return (
        f"Measured on {last['cpu']} ({', '.join(last['flags'])}), {last['cores']} cores, "
        f"{told[0]['at'][:10]} to {last['at'][:10]}; {versions}.\n"
    )


def latest(table: Table, rows: Iterable[Row]) -> list[Row]:
    """The last row of each key, in the order of their first."""
    found: dict[tuple[object, ...], Row] = {}
    for row in rows:
        if row.get("bench") == table.bench:
            found[tuple(row.get(name) for name in table.key)] = row
    return list(found.values())


def section(table: Table, rows: list[Row]) -> str:
    """A heading, what the bars are, and a markdown table."""
    lines = [f"## {table.title}", "", table.text, ""]
    lines.append("| " + " | ".join(column for column, _ in table.columns) + " |")
    lines.append("|" + "---|" * len(table.columns))
    for row in rows:
        cells = (text(column, row) for _, column in table.columns)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def text(column: Callable[[Row], object], row: Row) -> str:
    """One cell; a row without the figure has none, and a bad row says why."""
    try:
        value = column(row)
    except (KeyError, TypeError, IndexError):
        return ""
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def others() -> Iterator[str]:
    """Links to the pages that other benches wrote."""
    pages = sorted((ROOT / "docs" / "benchmarks").glob("*.md"))
    if pages:
        yield "## Other pages\n"
    for one in pages:
        heading = one.read_text().splitlines()[0].lstrip("# ")
        yield f"* [{heading}](benchmarks/{one.name})"
    if pages:
        yield ""


if __name__ == "__main__":
    main()
