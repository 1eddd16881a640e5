"""`python -m benchmarks.channel_pruning CORPUS DATA [--peer PYTHON]`: the table, as markdown.

CORPUS holds public/NAME/model.onnx; DATA holds NAME.calib.npz and NAME.test.npz with keys
`{i}|{input}` (unlabelled samples to prune by, others to judge by).
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.int8 import medians
from benchmarks.onnxsim_pruning import KINDS, Feed, Peer
from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.channels import Criterion
from worker.compression.passes import ChannelPruning, Context, Target

AMOUNTS = (0.1, 0.3)
SAMPLES = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("names", nargs="*", help="models; all where none is named")
    parser.add_argument("--peer", type=Path, help="a Python that has onnxsim")
    given = parser.parse_args()
    found = sorted(path.parent.name for path in given.corpus.glob("public/*/model.onnx"))
    print("| model | way | MACs saved | latency | SQNR, dB | same answer | seconds |")
    print("|---|---|---|---|---|---|---|")
    for name in given.names or found:
        path = given.corpus / "public" / name / "model.onnx"
        calib = samples(given.data / f"{name}.calib.npz")[:SAMPLES]
        test = samples(given.data / f"{name}.test.npz")
        for row in rows(path, calib, test, given.peer):
            print(f"| {name} | {row} |", flush=True)


def samples(path: Path) -> list[Feed]:
    arrays = np.load(path)
    feeds: dict[int, Feed] = {}
    for key in arrays.files:
        number, _, name = key.partition("|")
        feeds.setdefault(int(number), {})[name] = arrays[key]
    return [feeds[number] for number in sorted(feeds)]


def rows(
    path: Path, calib: Sequence[Feed], test: Sequence[Feed], peer: Path | None
) -> Iterator[str]:
    """A row for each amount, criterion and refit, and for the peer at the same work."""
    cache: dict[str, object] = {}
    whole = macs(path, calib[0])
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        context = Context(
            workdir=work,
            calibration=CalibrationSet(calib, "calibration"),
            target=Target(),
            seed=0,
            progress=lambda share, message: None,
            measure=lambda file: None,
            cache=cache,
        )
        for amount in AMOUNTS:
            for criterion in get_args(Criterion):
                for refit in (False, True):
                    out, seconds = pruned(path, amount, criterion, context, refit=refit)
                    way = f"{criterion}{' + refit' if refit else ''}, {amount:g}"
                    yield f"{way} | {judged(path, out, test)} | {seconds:.1f}"
            if peer is None:
                continue
            rival = Peer(peer, path, calib, work)
            for kind in KINDS:
                made = rival.at(kind, amount, lambda file: 1 - macs(file, calib[0]) / whole)
                told = "fails or saves nothing | | | " if made is None else ""
                told = told or judged(path, made or path, test)
                yield f"onnxsim {kind}, {amount:g} | {told} | "


def pruned(
    path: Path, amount: float, criterion: Criterion, context: Context, *, refit: bool
) -> tuple[Path, float]:
    out = context.workdir / "pruned.onnx"
    begun = time.monotonic()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pass_ = ChannelPruning(amount=amount, criterion=criterion, refit=refit)
        graph.save(pass_.apply(graph.load(path), context), out)
    return out, time.monotonic() - begun


def judged(before: Path, after: Path, test: Sequence[Feed]) -> str:
    """Work saved, latency, SQNR of the worst output, and share of equal answers."""
    saved = 1 - macs(after, test[0]) / max(macs(before, test[0]), 1)
    slow, fast = medians(before, after, test[0])
    pairs = [
        (a, b)
        for a, b in zip(answers(before, test), answers(after, test), strict=True)
        if a[0].dtype.kind == "f"
    ]
    decibels = min(sqnr(*pair) for pair in pairs)
    same = np.mean([
        np.mean(a.argmax(-1) == b.argmax(-1)) for a, b in zip(*pairs[0], strict=True)
    ])  # fmt: skip
    return f"{saved:.3f} | {slow:.2f} → {fast:.2f} ms | {decibels:.1f} | {same:.3f}"


def answers(path: Path, test: Sequence[Feed]) -> list[list[np.ndarray]]:
    """By output, one array for each sample."""
    session = graph.session(path)
    return [list(output) for output in zip(*(session.run(None, f) for f in test), strict=True)]


def sqnr(before: Sequence[np.ndarray], after: Sequence[np.ndarray]) -> float:
    signal = sum(float(np.square(a, dtype=np.float64).sum()) for a in before)
    noise = sum(
        float(np.square(a.astype(np.float64) - b).sum())
        for a, b in zip(before, after, strict=True)
    )
    return float(10 * np.log10(signal / max(noise, 1e-30)))


def macs(path: Path, feed: Feed) -> int:
    return sum(graph.macs(path, feed).values())


if __name__ == "__main__":
    main()
