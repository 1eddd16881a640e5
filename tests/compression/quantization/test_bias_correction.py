import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from tests.models import Feeds, build, context, normal, opened, run, sqnr
from worker.compression import graph
from worker.compression.errors import CompressionWarning
from worker.compression.passes import StaticQuantization

# Coarse weights, whose errors over positive inputs have a mean.
COARSE = {"weights": "int7", "per_channel": False}


def chain(*, opset: int = 17) -> onnx.ModelProto:
    """Three layers behind Relus, the second without a bias; input [n,6,8,8]."""
    weights = {
        "v": normal(12, 6, 3, 3, seed=1, scale=0.3),
        "v.bias": normal(12, seed=2),
        "w": normal(12, 12, 1, 1, seed=3, scale=0.4),
        "f": normal(5, 12, seed=4),
    }
    # One large weight spoils the steps of all others.
    weights["v"][0, 0, 0, 0] = weights["w"][0, 0, 0, 0] = weights["f"][0, 0] = 6
    text = """
    chain (float[n,6,8,8] x) => (float[n,5] y) {
        [first] a = Conv <pads = [1, 1, 1, 1]> (x, v, "v.bias")
        [relu] b = Relu (a)
        [second] c = Conv (b, w)
        [again] d = Relu (c)
        [pool] p = GlobalAveragePool (d)
        [flat] q = Flatten (p)
        [last] y = Gemm <transB = 1> (q, f)
    }
    """
    return build(text, weights, opset=opset)


def positive(count: int, *, seed: int = 0) -> Feeds:
    return [{"x": np.abs(normal(1, 6, 8, 8, seed=seed + place))} for place in range(count)]


def made(
    model: onnx.ModelProto, feeds: Feeds, folder: Path, **settings: Any
) -> tuple[Path, list[str]]:
    """The int8 file, and the codes of what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = StaticQuantization(**settings).apply(opened(model), context(folder, feeds))
    path = folder / f"int8-{'-'.join(map(str, settings.values()))}.onnx"
    graph.save(result, path)
    onnx.checker.check_model(str(path))
    said = [one.message for one in caught]
    return path, [one.code for one in said if isinstance(one, CompressionWarning)]


def answers(model: onnx.ModelProto | Path, feeds: Feeds, folder: Path) -> np.ndarray:
    return np.concatenate([run(model, feed, folder)[0] for feed in feeds])


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_samples_it_has_not_seen_come_closer_and_keep_their_mean(
    tmp_path: Path, opset: int
) -> None:
    model, feeds, unseen = chain(opset=opset), positive(32), positive(32, seed=1000)
    wanted = answers(model, unseen, tmp_path)
    found = {}
    for correct in (False, True):
        path, said = made(model, feeds, tmp_path, bias_correction=correct, **COARSE)
        assert said == []
        found[correct] = answers(path, unseen, tmp_path)
    assert sqnr(wanted, found[True]) > sqnr(wanted, found[False]) + 3
    shift = {key: np.abs((value - wanted).mean(axis=0)).max() for key, value in found.items()}
    assert shift[True] < shift[False] / 3


def test_layers_without_a_bias_get_one_and_stay_int8(tmp_path: Path) -> None:
    path, _ = made(chain(), positive(16), tmp_path, bias_correction=True, **COARSE)
    plain, _ = made(chain(), positive(16), tmp_path, **COARSE)
    given = {node.name: len(node.inputs) for node in graph.load(path).graph}
    before = {node.name: len(node.inputs) for node in graph.load(plain).graph}
    assert (before["second"], given["second"]) == (2, 3)
    assert (before["last"], given["last"]) == (2, 3)
    assert {output.name for output in graph.load(path).graph.outputs} == {"y"}
    assert len(graph.load(path).graph.inputs) == 1


def test_what_does_the_samples_set_aside_no_good_is_left(tmp_path: Path) -> None:
    text = "g (float[n,64] x) => (float[n,4] y) { [only] y = Gemm (x, w, b) }"
    model = build(text, {"w": normal(64, 4), "b": normal(4)})
    # Every fourth sample is set aside: the others' mean error is just the wrong way for it.
    feeds = [
        {"x": (-1 if place % 4 == 3 else 1) * np.abs(normal(1, 64, seed=place))}
        for place in range(32)
    ]
    plain, _ = made(model, feeds, tmp_path, **COARSE)
    path, said = made(model, feeds, tmp_path, bias_correction=True, **COARSE)
    assert said == ["biases_kept"]
    assert path.read_bytes() == plain.read_bytes()


def test_with_too_few_samples_to_judge_by_biases_stay(tmp_path: Path) -> None:
    plain, _ = made(chain(), positive(7), tmp_path)
    path, said = made(chain(), positive(7), tmp_path, bias_correction=True)
    assert said == ["biases_kept"]
    assert path.read_bytes() == plain.read_bytes()


def test_layers_kept_float_are_not_corrected(tmp_path: Path) -> None:
    settings = {"keep_float": ["second"], **COARSE}
    path, _ = made(chain(), positive(16), tmp_path, bias_correction=True, **settings)
    inputs = {node.name: len(node.inputs) for node in graph.load(path).graph}
    assert (inputs["second"], inputs["last"]) == (2, 3)


def test_qlinear_operators_are_refused() -> None:
    with pytest.raises(ValidationError, match="qdq"):
        StaticQuantization(format="qoperator", bias_correction=True)
