"""What is expected of a model before anything is tried."""

from pathlib import Path

import pytest
from onnx import parser

from tests import models
from worker.compression import compress, inspect
from worker.compression.preflight import preflight


def test_a_net_of_convolutions_can_become_int8(tmp_path: Path) -> None:
    path = models.written(models.convnet(), tmp_path / "model.onnx")
    found = preflight(path, models.images(1)[0], samples=64)
    assert 0 < found.int8_time_share <= 1
    assert found.expected_speedup > 0
    assert found.samples == 64


def test_what_int8_cannot_reach_promises_no_speed(tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]>'
        "g (float[256, 256] x) => (float[256, 256] y) { e = Exp(x) y = Tanh(e) }"
    )
    path = models.written(model, tmp_path / "model.onnx")
    found = inspect(path).preflight
    assert found is not None
    assert found.int8_time_share == 0
    assert found.expected_speedup == pytest.approx(1)
    assert "smaller file" in found.sentence


def test_a_model_that_refuses_made_up_inputs_says_so(tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]>'
        "g (int64[N] x) => (float[N] y) <float[3] table = {1, 2, 3}> { y = Gather(table, x) }"
    )
    found = inspect(models.written(model, tmp_path / "model.onnx"))
    assert found.preflight is None
    assert any("made-up inputs" in note for note in found.notes)


def test_the_report_tells_what_was_expected(tmp_path: Path) -> None:
    path = models.written(models.convnet(), tmp_path / "model.onnx")
    report = compress(path, {"passes": [{"method": "graph_cleaning"}]}, out=tmp_path / "out")
    assert report.preflight is not None
    assert "nothing can be verified without samples" in report.preflight.sentence
