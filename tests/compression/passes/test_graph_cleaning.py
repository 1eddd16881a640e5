from pathlib import Path

from tests.models import context, convnet, images, opened, run, sqnr
from worker.compression import graph
from worker.compression.passes import GraphCleaning


def test_the_same_function_in_fewer_nodes(tmp_path: Path) -> None:
    before = convnet(opset=12)
    after = GraphCleaning().apply(opened(before), context(tmp_path, images(4)))
    assert "BatchNormalization" not in graph.op_counts(after)
    assert graph.opset(after) >= 17
    feed = images(1, seed=9)[0]
    assert sqnr(run(before, feed, tmp_path)[0], run(after, feed, tmp_path)[0]) > 80


def test_cleaning_works_in_its_own_folder(tmp_path: Path) -> None:
    workdir = tmp_path / "work"
    workdir.mkdir()
    GraphCleaning().apply(opened(convnet()), context(workdir, images(1)))
    assert list(tmp_path.iterdir()) == [workdir]
    assert [path.name for path in workdir.iterdir()] == ["cleaned.onnx"]
