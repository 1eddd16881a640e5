"""Data unlike the training data is told, with what mends it; data as it should be is not."""

import warnings

import numpy as np
import onnx
import pytest

from tests.models import build, normal, written
from worker.compression import CompressionWarning, InvalidData
from worker.compression.calibration import CalibrationSet
from worker.compression.feeding import check_tokens, judge_samples

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)


def photos(count=16, side=24):
    """Smooth pictures, 0 to 1, more red than blue, and varying with the sample."""
    rng = np.random.default_rng(0)
    down, across = np.mgrid[:side, :side] / side
    found = []
    for _ in range(count):
        waves = [
            0.5 + 0.4 * np.sin(rng.uniform(1, 6) * down + rng.uniform(1, 6) * across + phase)
            for phase in rng.uniform(0, 6, 3)
        ]
        tinted = np.stack(waves) * np.array([1.0, 0.7, 0.3])[:, None, None]
        found.append(
            (tinted[None] + rng.normal(0, 0.02, (1, 3, side, side))).astype(np.float32)
        )
    return found


def trained(*, norm=True):
    """A classifier whose BatchNorm remembers normalized photos; or with it left out."""
    weights = {
        "w": normal(16, 3, 3, 3, seed=1, scale=0.4),
        "fc.w": normal(16, 10, seed=2),
        "scale": np.ones(16, np.float32), "bias": np.zeros(16, np.float32),
    }  # fmt: skip
    response = responses(weights["w"])
    weights |= {"mean": response.mean((0, 2, 3)), "var": response.var((0, 2, 3))}
    tail = "BatchNormalization (c, scale, bias, mean, var)" if norm else "Identity (c)"
    text = f"""
    net (float[n,3,h,w] x) => (float[n,10] y) {{
        c = Conv (x, w)
        b = {tail}
        r = Relu (b)
        p = GlobalAveragePool (r)
        f = Flatten (p)
        y = MatMul (f, "fc.w")
    }}
    """
    return build(text, weights)


def responses(weight):
    model = build(
        "conv (float[n,3,h,w] x) => (float[n,16,i,j] c) { c = Conv (x, w) }", {"w": weight}
    )
    session = onnx.reference.ReferenceEvaluator(model)
    return np.concatenate([session.run(None, {"x": right(photo)})[0] for photo in photos()])


def right(photo):
    return (photo - MEAN) / STD


FAULTS = {
    "raw": (lambda x: x * 255, "data_scale", "(x / 255 - mean) / std"),
    "not normalized": (lambda x: x, "data_scale", "(x - mean) / std"),
    "too large": (lambda x: right(x) * 255, "data_scale", "x / 255"),
    "too small": (lambda x: right(x) / 255, "data_scale", "x * 255"),
    "swapped": (lambda x: right(x)[:, ::-1], "data_color_order", "red and blue"),
    "reshaped": (
        lambda x: np.ascontiguousarray(right(x).transpose(0, 2, 3, 1)).reshape(x.shape),
        "data_layout",
        "transpose(0, 3, 1, 2)",
    ),
    "noise": (lambda x: normal(*x.shape, seed=3) * 900 + 7000, "data_unlike_training", ""),
}  # fmt: skip


def told(model, feeds, folder, *, labels=None, kinds=None):
    samples = CalibrationSet(
        [{"x": np.ascontiguousarray(x)} for x in feeds], "calibration", labels
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        judge_samples(
            written(model, folder / "m.onnx"), samples, kinds or {"y": "class"}, workdir=folder
        )
    ours = [one.message for one in caught if isinstance(one.message, CompressionWarning)]
    return [(one.code, one.message) for one in ours]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_told_with_its_remedy(tmp_path, fault):
    spoil, code, words = FAULTS[fault]
    found = told(trained(), [spoil(photo) for photo in photos()], tmp_path)
    assert [one for one, _ in found] == [code]
    assert words in found[0][1]


def test_data_as_in_training_raises_no_alarm(tmp_path):
    assert told(trained(), [right(photo) for photo in photos()], tmp_path) == []


@pytest.mark.parametrize("factor", [255, 1 / 255])
def test_without_batchnorm_the_first_response_tells_the_scale(tmp_path, factor):
    feeds = [right(photo) * np.float32(factor) for photo in photos()]
    found = told(trained(norm=False), feeds, tmp_path, kinds={"y": "value"})
    assert [code for code, _ in found] == (["data_scale"] if factor < 1 else [])
    assert told(trained(norm=False), [right(x) for x in photos()], tmp_path) == []


def test_pixels_where_channels_come_last_are_judged_by_rows_too(tmp_path):
    text = "net (float[n,24,24,3] x) => (float[n,24,24,3] y) { y = Relu (x) }"
    model = build(text, {})
    last = [np.ascontiguousarray(photo.transpose(0, 2, 3, 1)) for photo in photos()]
    assert told(model, last, tmp_path) == []
    first = [photo.reshape(1, 24, 24, 3) for photo in photos()]
    (found,) = told(model, first, tmp_path)
    assert found[0] == "data_layout"
    assert "transpose(0, 2, 3, 1)" in found[1]


def test_labels_of_one_class_are_told(tmp_path):
    feeds = [right(photo) for photo in photos()]
    same = [np.array([3])] * len(feeds)
    assert [code for code, _ in told(trained(), feeds, tmp_path, labels=same)] == [
        "constant_labels"
    ]
    several = [np.array([index % 3]) for index in range(len(feeds))]
    assert told(trained(), feeds, tmp_path, labels=several) == []


@pytest.mark.parametrize(("token", "known"), [(99, True), (100, False), (-1, False)])
def test_a_token_outside_of_the_table_is_refused_with_its_sample(tmp_path, token, known):
    text = "net (int64[n,t] ids) => (float[n,t,8] y) { y = Gather (table, ids) }"
    path = written(build(text, {"table": normal(100, 8)}), tmp_path / "m.onnx")
    ids = [np.array([[1, 2]]), np.array([[5, token]])]
    samples = CalibrationSet([{"ids": one} for one in ids], "calibration")
    if known:
        check_tokens(path, samples)
        return
    with pytest.raises(InvalidData, match=f"sample 1: 'ids' holds the id {token}.*0 to 99"):
        check_tokens(path, samples)
