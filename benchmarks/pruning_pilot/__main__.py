"""`python -m benchmarks.pruning_pilot FOLDER [--peer PYTHON]`: the table, as markdown.

Trains the two nets first (some minutes each on one core), where FOLDER does not hold them yet.
Held to: at half the multiply-accumulates at most 1 point of top-1 lost on the wide net, at most
5.5 points on the narrow one (2.08 times fewer).
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import onnx_ir as ir

from benchmarks.onnxsim_pruning import KINDS, Peer
from benchmarks.pruning_pilot.net import WIDTHS, calibration_set, test_set, trained
from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.channels import Criterion
from worker.compression.passes import ChannelPruning, Context, Target

SAMPLES = 256
AMOUNTS = {"wide": 0.5, "narrow": 1 - 1 / 2.08}
MOST_LOST = {"wide": 1.0, "narrow": 5.5}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--peer", type=Path, help="a Python that has onnxsim")
    given = parser.parse_args()
    print("| net | way | MACs | top-1 | lost |\n|---|---|---|---|---|")
    missed = False
    for name in WIDTHS:
        rows = list(measured(name, given.folder, given.peer))
        base = rows[0][2]
        for way, macs, top in rows:
            lost = 100 * (base - top)
            print(
                f"| {name} | {way} | {macs:.2f}x | {100 * top:.1f} | {lost:.1f} |", flush=True
            )
            missed |= way == "obs + refit" and lost > MOST_LOST[name]
    return int(missed)


def measured(name: str, folder: Path, peer: Path | None) -> Iterator[tuple[str, float, float]]:
    """(way, how many times fewer multiply-accumulates, top-1) of the net and of each way."""
    path = trained(name, folder)
    images = calibration_set(SAMPLES)
    feeds = [{"image": image[None]} for image in images]
    whole = macs(path, feeds[0])
    yield "unpruned", 1.0, top1(path)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        cache: dict[str, object] = {}
        for criterion in get_args(Criterion):
            for refit in (False, True):
                way = f"{criterion} + refit" if refit else criterion
                out = work / "pruned.onnx"
                graph.save(pruned(path, name, criterion, feeds, work, cache, refit=refit), out)
                yield way, whole / macs(out, feeds[0]), top1(out)
        if peer is not None:
            rival = Peer(peer, path, feeds, work)
            for kind in KINDS:
                found = rival.at(
                    kind, AMOUNTS[name], lambda file: 1 - macs(file, feeds[0]) / whole
                )
                if found is not None:
                    yield f"onnxsim, {kind}", whole / macs(found, feeds[0]), top1(found)


def pruned(
    path: Path,
    name: str,
    criterion: Criterion,
    feeds: list[dict[str, np.ndarray]],
    work: Path,
    cache: dict[str, object],
    *,
    refit: bool,
) -> ir.Model:
    context = Context(
        workdir=work,
        calibration=CalibrationSet(feeds, "calibration"),
        target=Target(),
        seed=0,
        progress=lambda share, message: None,
        measure=lambda file: None,
        cache=cache,
    )
    settings = ChannelPruning(
        amount=AMOUNTS[name], criterion=criterion, refit=refit, round_to=1
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return settings.apply(graph.load(path), context)


def macs(path: Path, feed: dict[str, np.ndarray]) -> int:
    return sum(graph.macs(path, feed).values())


def top1(path: Path) -> float:
    images, labels = test_set()
    session = graph.session(path)
    found = [
        session.run(None, {"image": images[start : start + 256]})[0].argmax(1)
        for start in range(0, len(images), 256)
    ]
    return float((np.concatenate(found) == labels).mean())


sys.exit(main())
