from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from tests.models import Feeds, branches, build, context, normal, opened, run, sqnr, written
from worker.compression import graph
from worker.compression.errors import CompressionWarning, InvalidRecipe
from worker.compression.passes import HalfPrecision, Pass, WeightQuantization

WIDE = """
g (float[n,64] x) => (float[n,64] y) {
    h = MatMul (x, w)
    r = Relu (h)
    [last] y = MatMul (r, w)
}
"""


def wide(*, opset: int = 17) -> onnx.ModelProto:
    return build(WIDE, {"w": normal(64, 64, scale=0.1)}, opset=opset)


def feeds(count: int = 8, *, width: int = 64) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(4, width, seed=seed)} for seed in range(count)]


def stored(model: onnx.ModelProto, given: Feeds, folder: Path, pass_: Pass) -> Path:
    path = folder / "stored.onnx"
    graph.save(pass_.apply(opened(model), context(folder, given)), path)
    onnx.checker.check_model(str(path))
    return path


def optimized(path: Path) -> list[tuple[str, int]]:
    """What ONNX Runtime runs, bodies included."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path.with_name("optimized.onnx"))
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    counts = graph.op_counts(graph.load(path.with_name("optimized.onnx")))
    return sorted((op, count) for op, count in counts.items() if op != "Constant")


METHODS: list[tuple[Pass, float, float]] = [
    (HalfPrecision(), 0.6, 55),
    (WeightQuantization(), 0.4, 35),
    (WeightQuantization(bits=4, min_sqnr_db=None), 0.35, 12),
]


@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize(("pass_", "share", "decibels"), METHODS)
def test_the_file_shrinks_and_what_runs_is_the_original(
    pass_: Pass, share: float, decibels: float, opset: int, tmp_path: Path
) -> None:
    original = written(wide(opset=opset), tmp_path / "original.onnx")
    path = stored(wide(opset=opset), feeds(), tmp_path, pass_)
    assert path.stat().st_size < share * original.stat().st_size
    assert optimized(path) == optimized(original)
    for feed in feeds():
        assert sqnr(run(original, feed, tmp_path)[0], run(path, feed, tmp_path)[0]) > decibels


@pytest.mark.parametrize("pass_", [HalfPrecision(), WeightQuantization(min_sqnr_db=None)])
def test_weights_in_bodies_of_if_are_stored_in_their_bodies(
    pass_: Pass, tmp_path: Path
) -> None:
    text = """
    g (float[n,64] x) => (float[n,64] y) {
        s = ReduceSum <keepdims = 0> (x)
        c = Greater (s, zero)
        y = If (c) <
            then_branch = then () => (float[n,64] t) { t = MatMul (x, w) },
            else_branch = otherwise () => (float[n,64] e) { e = MatMul (x, v) }
        >
    }
    """
    held = {"w": normal(64, 64), "v": normal(64, 64, seed=1), "zero": np.float32(0).reshape(())}
    model = build(text, held)
    conditional = next(node for node in model.graph.node if node.op_type == "If")
    for attribute in conditional.attribute:
        name = {"then_branch": "w", "else_branch": "v"}[attribute.name]
        made = onnx.helper.make_node(
            "Constant", [], [name], value=onnx.numpy_helper.from_array(held[name], name)
        )
        attribute.g.node.insert(0, made)
    del model.graph.initializer[:2]
    original = written(model, tmp_path / "original.onnx")
    path = stored(model, feeds(), tmp_path, pass_)
    assert path.stat().st_size < 0.6 * original.stat().st_size
    assert optimized(path) == optimized(original)
    assert sqnr(run(original, feeds()[0], tmp_path)[0], run(path, feeds()[0], tmp_path)[0]) > 35


def test_four_bits_give_way_where_the_outputs_need_it(tmp_path: Path) -> None:
    path = stored(wide(), feeds(), tmp_path, WeightQuantization(bits=4, min_sqnr_db=30))
    got, asked = run(path, feeds()[0], tmp_path)[0], run(wide(), feeds()[0], tmp_path)[0]
    assert sqnr(asked, got) > 27


def test_tiny_channels_keep_their_precision_as_float16(tmp_path: Path) -> None:
    weight = normal(64, 64)
    weight[5] *= 1e-9
    text = "g (float[n,64] x) => (float[n,64] y) { y = Gemm <transB = 1> (x, w) }"
    model = build(text, {"w": weight})
    path = stored(model, feeds(), tmp_path, HalfPrecision())
    asked, got = (run(one, feeds()[0], tmp_path)[0][:, 5] for one in (model, path))
    assert sqnr(asked * 1e9, got * 1e9) > 55


def test_too_large_for_float16_is_scaled(tmp_path: Path) -> None:
    model = build(
        "g (float[n,64] x) => (float[n,64] y) { y = MatMul (x, w) }",
        {"w": normal(64, 64, scale=1e6)},
    )
    path = stored(model, feeds(), tmp_path, HalfPrecision())
    asked, got = (run(one, feeds()[0], tmp_path)[0] for one in (model, path))
    assert sqnr(asked / 1e6, got / 1e6) > 55


def test_kept_layers_stay_float_with_the_reason(tmp_path: Path) -> None:
    pass_ = WeightQuantization(keep_float=["last"])
    with pytest.warns(CompressionWarning, match="changed nothing"):
        result = pass_.apply(opened(wide()), context(tmp_path, feeds()))
    assert graph.notes(result)["last"] == "kept float as asked"


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    pass_ = WeightQuantization(keep_float=["nowhere"])
    with pytest.raises(InvalidRecipe) as caught:
        pass_.apply(opened(wide()), context(tmp_path, feeds()))
    assert caught.value.code == "pattern_matches_nothing"


@pytest.mark.parametrize("settings", [{"bits": 2}, {"ops": ["Relu"]}, {"ops": []}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        WeightQuantization(**settings)


def test_small_bodies_change_nothing_and_say_so(tmp_path: Path) -> None:
    given = feeds(width=4)
    with pytest.warns(CompressionWarning) as caught:
        WeightQuantization().apply(opened(branches()), context(tmp_path, given))
    assert caught[0].message.code == "nothing_stored_smaller"  # type: ignore[union-attr]


def test_parameters_are_counted_through_their_encoding(tmp_path: Path) -> None:
    path = stored(wide(), feeds(), tmp_path, WeightQuantization())
    assert graph.parameters(graph.load(path))[0] == pytest.approx(64 * 64, rel=0.03)
