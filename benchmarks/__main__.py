"""`make bench`, `make bench-quick`: the product measured from outside, on an idle machine.

    python -m benchmarks [--list] [--quick] [--only NAME ...] [--corpus DIR --recipes FILE]

Every bench is a module of its own, run as a process of its own, that prints JSON lines;
`python -m benchmarks.NAME --help` tells its options, and `python -m benchmarks.table` makes
docs/benchmarks.md of the lines that `--results FILE` collects. Benches that need the corpus are
left out, and said so, where none is given. How a corpus is prepared: docs/benchmarks.md.
"""

import argparse
import importlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.rows import Results, about_this_machine


@dataclass(frozen=True)
class Bench:
    """A module of this package. `quick`: its arguments in `make bench-quick`, None: not there.

    `corpus`: it `must` have the options of tasks.add_arguments, or only --corpus (`folder`), or
    `may` have that.
    """

    corpus: Literal["no", "may", "folder", "must"] = "no"
    quick: tuple[str, ...] | None = None
    full: tuple[str, ...] = ()


BENCHES = {
    "int8": Bench("may", quick=()),
    "against_itself": Bench("may", quick=("--repeats", "5")),
    "calibration": Bench(),
    "int8_speed": Bench(quick=("--networks", "MobileNetV2")),
    "overhead": Bench(quick=()),
    "memory_limits": Bench(quick=("60", "200", "20")),
    "http_load": Bench(quick=("3", "32")),
    "fuzz_uploads": Bench(quick=("200",)),
    "openapi": Bench(),
    "mixed_versions": Bench(),
    "corpus": Bench("must"),
    "peers": Bench("must"),
    "search_cost": Bench(quick=("--models", "digits")),
    "second_goal": Bench("must"),
    "repeats": Bench("must"),
    "coverage": Bench("must"),
    "channel_pruning": Bench("must"),
    "channel_cost": Bench(),
    "methods": Bench("folder"),
    "repair": Bench("may"),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="name the benches, run none")
    parser.add_argument("--quick", action="store_true", help="a part that takes 5 minutes")
    parser.add_argument("--only", nargs="+", choices=list(BENCHES), metavar="NAME")
    parser.add_argument("--results", type=Path, help="add every line to this file, too")
    parser.add_argument("--corpus", type=Path, help="folder of the public models")
    parser.add_argument("--recipes", type=Path, help="the corpus' recipes.py: task metrics")
    parser.add_argument("--recipes-python", type=Path, default=Path(sys.executable))
    given = parser.parse_args()
    if given.list:
        listed()
        return 0
    results = Results(given.results)
    results.add(about_this_machine())
    ended = [run(name, given, results) for name in given.only or BENCHES]
    return int(not all(ended))


def listed() -> None:
    for name, bench in BENCHES.items():
        module = importlib.import_module(f"benchmarks.{name}")
        what = (module.__doc__ or "").splitlines()[0]
        quick = "quick" if bench.quick is not None else ""
        print(f"{name:16}{quick:7}{'' if bench.corpus == 'no' else 'corpus':8}{what}")


def run(name: str, given: argparse.Namespace, results: Results) -> bool:
    """Run one bench and pass its lines on; whether it ended well."""
    bench = BENCHES[name]
    if given.quick and bench.quick is None and not given.only:
        return True
    if lacking := missing(bench, given):
        results.add({"bench": name, "left_out": f"needs {lacking}"})
        return True
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments(bench, given)]
    print("$", *command[1:], file=sys.stderr, flush=True)
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        for line in running.stdout or ():
            # A bench that can go on writes its lines itself.
            keep(line, Results() if bench.corpus == "must" else results)
    took = time.monotonic() - start
    print(f"  {took:.0f} s, exit {running.returncode}", file=sys.stderr, flush=True)
    if running.returncode:
        results.add({"bench": name, "error": f"ended with {running.returncode}"})
    return running.returncode == 0


def missing(bench: Bench, given: argparse.Namespace) -> str | None:
    if bench.corpus in ("folder", "must") and not given.corpus:
        return "--corpus"
    return "--recipes" if bench.corpus == "must" and not given.recipes else None


def arguments(bench: Bench, given: argparse.Namespace) -> list[str]:
    chosen = bench.quick if given.quick and bench.quick is not None else bench.full
    options: dict[str, Path | None] = {}
    if bench.corpus != "no":
        options["--corpus"] = given.corpus
    if bench.corpus == "must":
        options |= {"--recipes": given.recipes, "--recipes-python": given.recipes_python}
        options["--results"] = given.results
    words = ((option, str(path)) for option, path in options.items() if path)
    return [*chosen, *(word for pair in words for word in pair)]


def keep(line: str, results: Results) -> None:
    """A JSON line becomes a row; anything else is somebody's chatter."""
    try:
        row = json.loads(line)
    except ValueError:
        print(line, end="", file=sys.stderr, flush=True)
    else:
        results.add(row)


if __name__ == "__main__":
    sys.exit(main())
