"""The snippet of a report runs as it stands, and feeds what the samples were made of."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.models import build, convnet, images, written
from worker.compression.calibration import IMAGE_PRESETS, Images
from worker.compression.calibration.pictures import read_picture
from worker.compression.passes import Target
from worker.compression.snippet import fed_back, snippet

SETTINGS = [
    *IMAGE_PRESETS,
    {"preset": "imagenet", "color": "bgr", "layout": "nhwc"},
    {"preset": "yolo", "size": [40, 56], "pad": 0},
    {"resize": "stretch", "interpolation": "nearest", "scale": 1, "dtype": "uint8"},
]


def executed(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    names = {}
    exec(compile(code, "snippet", "exec"), names)  # noqa: S102 - it is what is tested
    return names


def test_it_runs_the_model_beside_it(tmp_path, monkeypatch, capsys):
    written(convnet(), tmp_path / "model.onnx")
    executed(snippet(Target(threads=2), images()[0]), tmp_path, monkeypatch)
    assert capsys.readouterr().out == "[(1, 10)]\n"


@pytest.mark.parametrize("given", SETTINGS, ids=str)
def test_its_preprocessing_is_that_of_the_samples(tmp_path, monkeypatch, given):
    settings = Images.model_validate(given)
    size = settings.size or (48, 40)
    nhwc = settings.layout == "nhwc"
    kind = {"float32": "float", "uint8": "uint8"}[settings.dtype]
    text = f"net ({kind}[n,a,b,c] x) => ({kind}[n,a,b,c] y) {{ y = Identity (x) }}"
    written(build(text, {}), tmp_path / "model.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (61, 90, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    stream.seek(0)
    wanted = read_picture(stream, "a.png", settings, size=size, nhwc=nhwc)
    names = executed(
        snippet(Target(), {"x": np.stack([wanted])}, images=settings), tmp_path, monkeypatch
    )
    got = names["prepare"](Image.fromarray(pixels))
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


def test_states_are_fed_back_in_a_loop(tmp_path, monkeypatch):
    text = """
    count (float[1,1] x, float[1,1] state) => (float[1,1] y, float[1,1] next) {
        one = Constant <value = float[1,1] {1.0}> ()
        next = Add (state, one)
        y = Add (x, next)
    }
    """
    written(build(text, {}), tmp_path / "model.onnx")
    states = fed_back(
        {"state": {"from_output": "next", "initial": "zeros"}, "x": {"shape": [1]}}
    )
    feed = {name: np.zeros((1, 1), np.float32) for name in ("x", "state")}
    names = executed(snippet(Target(), feed, states=states), tmp_path, monkeypatch)
    assert float(names["outputs"]["y"][0, 0]) == 3
