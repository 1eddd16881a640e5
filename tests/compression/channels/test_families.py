"""Every way in which channels hang together is pruned at 30 %, and proved."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.compression.channels.graphs import GRAPHS
from tests.models import context, opened, run, written
from worker.compression import graph
from worker.compression.channels import survey
from worker.compression.channels.proof import TOLERANCE
from worker.compression.passes import ChannelPruning

every_graph = pytest.mark.parametrize("name", GRAPHS)


@every_graph
def test_every_group_is_proved(name: str, tmp_path: Path) -> None:
    made, feed = GRAPHS[name]
    found = survey(opened(made()), [feed(0), feed(1)], folder=tmp_path, seed=0)
    assert found.groups
    assert [verdict for verdict in found.verdicts if not verdict.proved] == []
    assert all((verdict.error or 0.0) <= TOLERANCE for verdict in found.verdicts)


@every_graph
def test_a_third_of_the_work_goes_and_the_interface_stays(name: str, tmp_path: Path) -> None:
    made, feed = GRAPHS[name]
    original = written(made(), tmp_path / "original.onnx")
    feeds = [feed(seed) for seed in range(20)]
    pruning = ChannelPruning(amount=0.3, round_to=1)
    result = pruning.apply(opened(made()), context(tmp_path, feeds))
    path = tmp_path / "result.onnx"
    graph.save(result, path)
    onnx.checker.check_model(str(path), full_check=True)
    before, after = (sum(graph.macs(p, feed(0)).values()) for p in (original, path))
    assert after / before == pytest.approx(0.7, abs=0.05)
    assert graph.inputs(path) == graph.inputs(original)
    assert graph.outputs(path) == graph.outputs(original)
    expected, found = (run(p, feed(99), tmp_path)[0] for p in (original, path))
    assert expected.shape == found.shape
    assert np.isfinite(found).all()
