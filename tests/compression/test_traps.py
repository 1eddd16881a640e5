"""Graphs that look fine after int8 and are not, from the front door to the report."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from tests.models import build, normal, written
from worker.compression import Report, compress


def int8(path: Path, folder: Path, recipe: dict[str, object], **data: np.ndarray) -> Report:
    np.savez(folder / "data.npz", **data)
    return compress(
        path,
        recipe,
        out=folder / "out",
        calibration=folder / "data.npz",
        quiet=lambda: nullcontext(False),
    )


def by_hand(**settings: object) -> dict[str, object]:
    return {"passes": [{"method": "static_quantization", **settings}]}


# A detector whose boxes, in pixels, and scores leave it in one tensor


def detector(path: Path) -> Path:
    """Boxes of hundreds of pixels beside scores of hundredths, joined by a Concat."""
    text = """
    detector (float[n,3,16,16] image) => (float[n,7,64] found) {
        [stem] s = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (image, stem_w)
        [act] a = Relu (s)
        [boxes] b = Conv (a, boxes_w, boxes_b)
        [scores] c = Conv (a, scores_w, scores_b)
        [prob] p = Sigmoid (c)
        [join] j = Concat <axis = 1> (b, p)
        [head] h = Conv (j, mix_w)
        found = Reshape (h, shape)
    }
    """
    mix = np.eye(7, dtype=np.float32)[:, :, None, None]
    weights = {
        "stem_w": normal(16, 3, 3, 3, seed=1, scale=0.3),
        "boxes_w": normal(4, 16, 1, 1, seed=2, scale=40.0),
        "boxes_b": np.full(4, 320, np.float32),
        "scores_w": normal(3, 16, 1, 1, seed=3, scale=0.3),
        "scores_b": np.full(3, -4, np.float32),
        "mix_w": mix,
        "shape": np.array([0, 7, 64]),
    }
    return written(build(text, weights), path)


def test_a_detector_whose_scores_are_gone_is_never_called_fine(tmp_path: Path) -> None:
    """As a whole the tensor keeps over 40 dB: boxes of hundreds drown scores of hundredths."""
    report = int8(
        detector(tmp_path / "m.onnx"), tmp_path, by_hand(), image=normal(64, 3, 16, 16)
    )
    assert report.fidelity is not None
    output = report.fidelity.outputs[0]
    assert output.kind == "value"
    assert output.sqnr_db is not None
    assert output.sqnr_db > 40
    assert output.worst_channel is not None
    assert (output.worst_channel.axis, output.worst_channel.index >= 4) == (1, True)
    assert report.verdict.outcome == "as_asked_but_worse"
    assert "worse than the bound allows" in report.verdict.sentence
    page = (tmp_path / "out" / "report.html").read_text()
    assert "As asked, but worse" in page


def test_a_search_returns_no_detector_without_scores(tmp_path: Path) -> None:
    recipe = {"goal": {"objective": "size", "time_budget_s": 12, "min_sqnr_db": 20}}
    report = int8(detector(tmp_path / "m.onnx"), tmp_path, recipe, image=normal(64, 3, 16, 16))
    tried = {one.name: one for one in report.candidates}
    assert not tried["int8"].within_bound
    sqnr = report.verdict.sqnr_db
    assert sqnr is None or sqnr >= 20


# Several inputs, several outputs, figures instead of classes


def regression(path: Path) -> Path:
    """Two inputs that meet; a vector of three figures of very different size, and a scalar."""
    text = """
    regression (float[n,12] state, float[n,5] action)
        => (float[n,3] change, float[n,1] reward) {
        both = Concat <axis = 1> (state, action)
        [first] f = Gemm (both, first_w, first_b)
        r = Relu (f)
        [change] change = Gemm (r, change_w, change_b)
        [reward] reward = Gemm (r, reward_w)
    }
    """
    sizes = np.array([100.0, 1.0, 0.1], np.float32)
    weights = {
        "first_w": normal(17, 32, seed=1, scale=0.3),
        "first_b": normal(32, seed=2),
        "change_w": normal(32, 3, seed=3) * sizes,
        "change_b": np.array([2000, 0, 0], np.float32),
        "reward_w": normal(32, 1, seed=4),
    }
    return written(build(text, weights), path)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_regression_of_several_inputs_and_outputs_is_judged_by_its_figures(
    tmp_path: Path, labelled: bool
) -> None:
    """The first figure is always the largest: by arg-max no loss would ever show."""
    state, action = normal(64, 12, seed=5), normal(64, 5, seed=6)
    targets = {"labels": normal(64, 1, seed=7)} if labelled else {}
    report = int8(
        regression(tmp_path / "m.onnx"),
        tmp_path,
        by_hand(per_channel=False),
        state=state,
        action=action,
        **targets,
    )
    assert report.fidelity is not None
    assert {one.name: one.kind for one in report.fidelity.outputs} == {
        "change": "value",
        "reward": "value",
    }
    assert "one_answer" in {one.code for one in report.warnings}
    # With one scale for all weights those of the small figures are rounded to zero.
    assert report.verdict.outcome == "as_asked_but_worse"
    change = report.fidelity.outputs[0]
    assert change.worst_channel is not None
    assert change.worst_channel.index > 0
    assert (report.accuracy is not None) is labelled
