"""Results on stdout, for people."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from app.cli.refusals import printable

SHOWN_WEIGHTS = 40


def print_report(report: Mapping[str, Any], out: str) -> None:
    """The sentence, a table of before and after, what to know, and where the files are."""
    console = _console()
    console.print(printable(report["verdict"]["sentence"]))
    table = Table(box=None, pad_edge=False)
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="left" if not heading else "right")
    for row in _rows(report):
        table.add_row(*row)
    console.print(table)
    for warning in report["warnings"]:
        console.print(printable(f"note: {warning['message']} [{warning['code']}]"))
    console.print(f"results: {out}")


def _rows(report: Mapping[str, Any]) -> Iterable[tuple[str, str, str]]:
    before, after = report["before"], report["after"]
    yield "file", in_bytes(before["bytes"]), in_bytes(after["bytes"])
    yield (
        "download (zstd)",
        in_bytes(before["compressed_bytes"]),
        in_bytes(after["compressed_bytes"]),
    )
    if before["peak_memory_bytes"] and after["peak_memory_bytes"]:
        yield (
            "peak memory",
            in_bytes(before["peak_memory_bytes"]),
            in_bytes(after["peak_memory_bytes"]),
        )
    for timed in report["latency"]:
        label = f"latency, {timed['threads']} thread" + "s" * (timed["threads"] > 1)
        unsure = "" if timed["verdict"] != "unreliable" else " (unreliable)"
        yield (
            label,
            f"{timed['before']['p50']:.3g} ms",
            f"{timed['after']['p50']:.3g} ms{unsure}",
        )
    if accuracy := report["accuracy"]:
        yield accuracy["metric"], f"{accuracy['before']:.4g}", f"{accuracy['after']:.4g}"


def print_inspection(found: Mapping[str, Any], name: str) -> None:
    """Format, size, interface, operators and the weights that methods can name."""
    console = _console()
    console.print(
        f"{name}: {found['format']}, opset {found['opset']}, {in_bytes(found['bytes'])}, "
        f"{found['parameters']:,} parameters, {found['nonzero_parameters']:,} of them not zero"
    )
    for word in ("inputs", "outputs"):
        for port in found[word]:
            shape = ", ".join("?" if axis is None else str(axis) for axis in port["shape"])
            kind = f"  ({port['kind']})" if port["kind"] else ""
            line = f"{word[:-1]:<7} {port['name']}: {port['dtype']} [{shape}]{kind}"
            console.print(printable(line))
    ops = sorted(found["ops"].items(), key=lambda entry: -entry[1])
    console.print(printable("operators: " + ", ".join(f"{op} x{count}" for op, count in ops)))
    _print_weights(console, found["weights"])
    if found["preflight"]:
        console.print(f"expect: {found['preflight']['sentence']}")
    for note in found["notes"]:
        console.print(printable(f"note: {note}"))


def _console() -> Console:
    """Lines of a file or a pipe are not broken: who reads them may be a program."""
    console = Console(highlight=False, markup=False)
    return (
        console if console.is_terminal else Console(highlight=False, markup=False, width=10_000)
    )


def _print_weights(console: Console, weights: list[Mapping[str, Any]]) -> None:
    if not weights:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("weight", "operator", "shape", "zeros"):
        table.add_column(heading, overflow="fold")
    for weight in weights[:SHOWN_WEIGHTS]:
        shape = "x".join(map(str, weight["shape"]))
        name, zeros = printable(weight["name"]), f"{weight['sparsity']:.1%}"
        table.add_row(name, printable(weight["op"]), shape, zeros)
    console.print(table)
    if len(weights) > SHOWN_WEIGHTS:
        console.print(f"... and {len(weights) - SHOWN_WEIGHTS} more; --json shows all of them")


def in_bytes(count: int) -> str:
    """A size as people read it."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"
