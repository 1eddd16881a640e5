"""bundle.zip: the model, its report, and what proves them elsewhere."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template

from worker.compression import graph
from worker.compression.bundle.golden import write_golden
from worker.compression.bundle.packing import WORTH_DEFLATING, Packing
from worker.compression.calibration import Feed
from worker.compression.fidelity import OutputKind
from worker.compression.report import Report

__all__ = ["NAME", "write_bundle"]

NAME = "bundle.zip"
_SCRIPTS = files("worker.compression.bundle.scripts")


def write_bundle(
    out: Path,
    report: Report,
    *,
    original: Path,
    samples: Sequence[Feed],
    kinds: Mapping[str, OutputKind],
    states: Mapping[str, str],
    workdir: Path,
) -> Path:
    """Pack what lies in `out`, golden outputs of `samples`, and programs that check them.

    The same files and samples give the same bytes. `states` names the output that feeds an
    input next, where the model is stateful.
    """
    model, golden = out / "model.onnx", workdir / "golden.npz"
    count = write_golden(samples, result=model, original=original, states=states, path=golden)
    path = out / NAME
    with Packing(path) as packing:
        packing.add_text("README.txt", _readme(report, count))
        for name in ("verify.py", "bench.py"):
            packing.add_text(name, (_SCRIPTS / name).read_text())
        packing.add_text("golden.json", _facts(report, kinds, states))
        packing.add_file("golden.npz", golden, deflate=False)
        packing.add_text("recipe.json", report.reproduce.recipe.model_dump_json(indent=1))
        for name in ("report.json", "report.html"):
            packing.add_file(name, out / name)
        shrinks = report.after.compressed_bytes < WORTH_DEFLATING * report.after.bytes
        for file in (model, *graph.external_files(model)):
            packing.add_file(file.name, file, deflate=shrinks)
    golden.unlink()
    return path


def _facts(report: Report, kinds: Mapping[str, OutputKind], states: Mapping[str, str]) -> str:
    """What verify.py needs to know, as JSON."""
    made = report.environment
    versions = ", ".join(f"{name} {version}" for name, version in made.versions.items())
    facts = {
        "kinds": dict(kinds),
        "states": dict(states),
        "threads": report.reproduce.recipe.target.threads,
        "made_on": f"{made.cpu}, {versions}",
    }
    return json.dumps(facts, indent=1)


def _readme(report: Report, count: int) -> str:
    template = Template((_SCRIPTS / "README.txt").read_text())
    return template.substitute(
        name=report.model.name,
        sentence=report.verdict.sentence,
        count=count,
        upload=report.model.sha256,
        versions=", ".join(f"{k} {v}" for k, v in report.environment.versions.items()),
        cpu=report.environment.cpu,
    )
