from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.models import Feeds, context, convnet, images, written
from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.passes import Context, StaticQuantization

CANDIDATES: list[dict[str, Any]] = [
    {},
    {"calibration": "mse"},
    {"calibration": "entropy", "ops": ["Conv"]},
    {"keep_float": ["depthwise"]},
    {"keep_float": ["relu"], "calibration": "percentile"},
    {"format": "qoperator"},
]


class Counted(Sequence[Any]):
    """Samples that know how often one of them was read."""

    def __init__(self, feeds: Feeds) -> None:
        self.feeds, self.reads = list(feeds), 0

    def __len__(self) -> int:
        return len(self.feeds)

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return self.feeds[index]

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))


def made(folder: Path, source: Path, ctx: Context, settings: dict[str, Any]) -> bytes:
    """The bytes of a candidate, made as the pipeline makes it."""
    folder.mkdir(parents=True)
    given = replace(ctx, workdir=folder, source=source)
    graph.save(
        StaticQuantization(**settings).apply(graph.load(source), given), folder / "a.onnx"
    )
    return (folder / "a.onnx").read_bytes()


@pytest.mark.filterwarnings("ignore::worker.compression.errors.CompressionWarning")
def test_many_candidates_are_made_of_one_pass_over_the_samples(tmp_path: Path) -> None:
    source = written(convnet(), tmp_path / "source.onnx")
    feeds = Counted(images(5))
    ctx = replace(
        context(tmp_path, []), calibration=CalibrationSet(feeds, "calibration"), cache={}
    )
    reads = []
    for number, settings in enumerate(CANDIDATES[:4]):
        made(tmp_path / str(number), source, ctx, settings)
        reads.append(feeds.reads)
    assert reads == [6] * 4  # the sizes of tensors are taken from one sample more


@pytest.mark.filterwarnings("ignore::worker.compression.errors.CompressionWarning")
@pytest.mark.parametrize("order", [1, -1])
def test_a_candidate_is_the_same_with_and_without_what_came_before(
    tmp_path: Path, order: int
) -> None:
    source = written(convnet(), tmp_path / "source.onnx")
    alone = context(tmp_path, images(5))
    shared = replace(alone, cache={})
    for number, settings in list(enumerate(CANDIDATES))[::order]:
        first = made(tmp_path / f"shared-{number}", source, shared, settings)
        second = made(tmp_path / f"alone-{number}", source, alone, settings)
        assert first == second, settings


def test_another_file_or_other_samples_are_calibrated_anew(tmp_path: Path) -> None:
    first = written(convnet(), tmp_path / "first.onnx")
    other = convnet()
    other.graph.initializer[0].raw_data = np.multiply(
        np.frombuffer(other.graph.initializer[0].raw_data, np.float32), 2
    ).tobytes()
    second = written(other, tmp_path / "second.onnx")
    cache: dict[str, object] = {}
    for number, (source, feeds) in enumerate(
        [(first, images(3)), (second, images(3)), (second, images(3, seed=50))]
    ):
        shared = replace(context(tmp_path, feeds), cache=cache)
        alone = context(tmp_path, feeds)
        pair = [
            made(tmp_path / f"{number}-{name}", source, ctx, {})
            for name, ctx in (("shared", shared), ("alone", alone))
        ]
        assert pair[0] == pair[1]
