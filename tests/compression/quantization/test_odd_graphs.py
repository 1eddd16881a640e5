"""Every quantization method on graphs that are odd: it loads, runs and stays close."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.compression.quantization.odd_graphs import GRAPHS, sparse
from tests.compression.quantization.sharing_graphs import SHARING
from tests.models import context, opened, run, sqnr, written
from worker.compression import graph
from worker.compression.errors import InvalidModel
from worker.compression.passes import (
    DynamicQuantization,
    Pass,
    StaticQuantization,
    WeightQuantization,
)

EVERY = {**GRAPHS, **SHARING}
METHODS: list[Pass] = [
    StaticQuantization(),
    StaticQuantization(format="qoperator"),
    DynamicQuantization(ops=["MatMul", "Gemm", "LSTM", "Conv"]),
    WeightQuantization(),
]


@pytest.mark.filterwarnings("ignore::worker.compression.errors.CompressionWarning")
@pytest.mark.parametrize("name", EVERY)
def test_any_graph_gives_a_model_that_loads_runs_and_is_close(
    name: str, tmp_path: Path
) -> None:
    odd = EVERY[name]()
    original = written(odd.model, tmp_path / "original.onnx")
    feeds = [odd.feed(seed) for seed in range(4)]
    for method in METHODS:
        path = tmp_path / "result.onnx"
        graph.save(method.apply(opened(odd.model), context(tmp_path, feeds)), path)
        onnx.checker.check_model(str(path))
        for feed in feeds:
            before, after = run(original, feed, tmp_path), run(path, feed, tmp_path)
            assert [one.dtype for one in before] == [one.dtype for one in after]
            assert [one.shape for one in before] == [one.shape for one in after]
            assert closeness(before, after) > 18, method


def closeness(before: list[np.ndarray], after: list[np.ndarray]) -> float:
    """The worst SQNR of any output, where the original is finite."""
    worst = np.inf
    for ours, theirs in zip(before, after, strict=True):
        known = np.isfinite(ours) if ours.dtype.kind == "f" else np.zeros(ours.shape, bool)
        if known.any():
            worst = min(worst, sqnr(ours[known].astype(float), theirs[known].astype(float)))
    return worst


def test_sparse_initializers_are_refused_by_name(tmp_path: Path) -> None:
    path = written(sparse().model, tmp_path / "sparse.onnx")
    with pytest.raises(InvalidModel, match=r"reads 'v'") as caught:
        graph.load(path)
    assert "sparse" in (caught.value.hint or "")
