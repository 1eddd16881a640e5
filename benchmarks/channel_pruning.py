"""Channel pruning of the public models: work, time, closeness and task metric of each way.

    python -m benchmarks.channel_pruning --corpus DIR --recipes FILE --results FILE
        [--peer PYTHON] [--page FILE] [--models NAME ...] [--criteria NAME ...]

Every criterion, with and without refit, at `amount` .1 and .3 with 128 unlabelled samples (or
all there are), and onnxsim's structured pruning at the same work (`--peer`: a Python that has
onnxsim). Rows that RESULTS holds are not measured again, so that an interrupted run goes on;
`--page` writes them as a page.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks import tasks
from benchmarks.channel_table import page
from benchmarks.int8 import medians
from benchmarks.judging import judged
from benchmarks.onnxsim_pruning import KINDS, Feed, Peer
from benchmarks.rows import Results, Row, about_this_machine, watched
from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.channels import Criterion
from worker.compression.passes import ChannelPruning, Context, Target

AMOUNTS = (0.1, 0.3)
SAMPLES = 128
# Files judged by one process: an interrupted run keeps what was judged.
_TOGETHER = 4


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tasks.add_arguments(parser)
    parser.add_argument("--peer", type=Path, help="a Python that has onnxsim")
    parser.add_argument("--amounts", nargs="*", type=float, default=list(AMOUNTS))
    parser.add_argument("--page", type=Path, help="write the rows here, as markdown")
    parser.add_argument(
        "--criteria", nargs="*", default=list(get_args(Criterion)), help="obs is always one"
    )
    given = parser.parse_args()
    results = Results(given.results)
    results.add(about_this_machine())
    for amount in given.amounts:
        for name in given.models:
            measure(given, name, amount, results)
            if given.page:
                given.page.write_text(page(results.rows))


def measure(given: argparse.Namespace, name: str, amount: float, results: Results) -> None:
    """Prune in every way that is not measured yet, and judge a few files at a time."""
    corpus = tasks.corpus(given)
    key = {"bench": "channel_pruning", "model": name, "amount": amount}
    peer = given.peer and given.peer.absolute()
    made: list[tuple[Row, Path]] = []
    with tempfile.TemporaryDirectory() as scratch:
        subject = Subject(
            corpus.model(name), corpus.feeds(name, SAMPLES), Path(scratch), given.criteria
        )
        for way, file, row in subject.ways(amount, peer):
            told = key | {"way": way} | row
            if file is None and not results.found(**key, way=way):
                results.add(told)
            elif file is not None and not results.found(**key, way=way):
                made.append((told, file))
            if len(made) == _TOGETHER:
                judge(corpus, name, made, results)
                made = []
        judge(corpus, name, made, results)


def judge(
    corpus: tasks.Corpus, name: str, made: Sequence[tuple[Row, Path]], results: Results
) -> None:
    if not made:
        return
    found = judged(corpus, name, [file for _, file in made])
    before, _ = next(found)
    for (row, _), (metric, close) in zip(made, found, strict=True):
        results.add(row | {"metric": metric, "metric_before": before, **close})


@dataclass(frozen=True)
class Subject:
    """A model, its calibration feeds, a folder for what is made of it, and how to rank."""

    model: Path
    feeds: Path
    folder: Path
    criteria: Sequence[Criterion]

    @cached_property
    def samples(self) -> list[Feed]:
        arrays = np.load(self.feeds)
        found: dict[int, Feed] = {}
        for key in arrays.files:
            number, _, name = key.partition("|")
            found.setdefault(int(number), {})[name] = arrays[key]
        return [found[number] for number in sorted(found)][:SAMPLES]

    @cached_property
    def context(self) -> Context:
        return Context(
            workdir=self.folder,
            calibration=CalibrationSet(self.samples, "calibration"),
            target=Target(),
            seed=0,
            progress=lambda share, message: None,
            measure=lambda file: None,
            cache={},
        )

    def ways(self, amount: float, peer: Path | None) -> Iterator[tuple[str, Path | None, Row]]:
        """Name, file and figures of each way to prune; no file where one fails."""
        file, row = self._pruned(amount, "obs", refit=True)
        yield "obs + refit", file, row
        yield "obs", *self._pruned(amount, "obs", refit=False)
        yield from self._rivals(row["macs_saved"], peer)
        for criterion in self.criteria:
            for refit in (True, False):
                if criterion != "obs":
                    way = f"{criterion}{' + refit' if refit else ''}"
                    yield way, *self._pruned(amount, criterion, refit=refit)

    def _rivals(
        self, share: float, peer: Path | None
    ) -> Iterator[tuple[str, Path | None, Row]]:
        """onnxsim at the same share of work."""
        if peer is None:
            return
        rival = Peer(peer, self.model, self.samples, self.folder)
        for kind in KINDS:
            made = rival.at(kind, share, self.saved)
            row = {"error": "fails or saves nothing"} if made is None else self._figures(made)
            yield f"onnxsim {kind}", made, row

    def saved(self, file: Path) -> float:
        """Share of the multiplications that is gone."""
        whole = sum(graph.macs(self.model, self.samples[0]).values())
        return 1 - sum(graph.macs(file, self.samples[0]).values()) / max(whole, 1)

    def _pruned(self, amount: float, criterion: Criterion, *, refit: bool) -> tuple[Path, Row]:
        out = self.folder / f"{criterion}-{refit}-{amount}.onnx"
        begun = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pass_ = ChannelPruning(amount=amount, criterion=criterion, refit=refit)
            graph.save(pass_.apply(graph.load(self.model), self.context), out)
        return out, {"prune_seconds": round(time.monotonic() - begun, 1)} | self._figures(out)

    def _figures(self, file: Path) -> Row:
        with watched() as watch:
            before, after = medians(self.model, file, self.samples[0])
        return {
            "samples": len(self.samples), "macs_saved": round(self.saved(file), 4),
            "ms_before": round(before, 3), "ms_after": round(after, 3), "quiet": watch["quiet"],
        }  # fmt: skip


if __name__ == "__main__":
    main()
