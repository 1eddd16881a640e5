"""A poor yardstick is told: noise, constants, one answer, outputs that are not finite."""

import warnings
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.models import build, normal, written
from worker.compression import compress, graph
from worker.compression.calibration import CalibrationSet
from worker.compression.errors import CompressionWarning
from worker.compression.fidelity import Examined, examine, output_kinds

GRAPHS = {
    "noise": ("float[n,8] y", "r = RandomNormalLike (x) m = MatMul (x, w) y = Add (m, r)"),
    "a constant": ("float[n,8] y", "z = Mul (x, zero) m = MatMul (z, w) y = Add (m, b)"),
    "one answer": ("float[n,8] y", "m = MatMul (x, w) y = Add (m, far)"),
    "one class": ("float[n,8] y", "m = MatMul (x, w) a = Add (m, far) y = Softmax (a)"),
    "not finite": ("float[n,8] y", "m = MatMul (x, w) y = Sqrt (m)"),
    "nothing finite": ("float[n,8] y", "m = Mul (x, zero) y = Div (m, zero)"),
    "shapes": ("int64[2,k] i, float[k] y", "g = Greater (x, b) i = NonZero (g) "
               "f = Cast <to = 1> (i) y = ReduceMean <axes = [0], keepdims = 0> (f)"),
    "fine": ("float[n,8] y", "y = MatMul (x, w)"),
}  # fmt: skip
TOLD = {
    "noise": "not_deterministic",
    "a constant": "constant_output",
    "one answer": "one_answer",
    "one class": "one_answer",
    "not finite": "output_not_finite",
    "nothing finite": "output_not_finite",
    "shapes": "varying_shape",
}


def model(folder: Path, case: str, rows: str = "n") -> Path:
    made, nodes = GRAPHS[case]
    weights = {
        "w": normal(8, 8, seed=1),
        "b": normal(8, seed=2),
        "zero": np.float32(0).reshape(()),
        "far": np.array([100, 0, 50, 0, 0, 0, 0, 0], np.float32),
    }
    used = {name: array for name, array in weights.items() if f", {name})" in nodes}
    text = f"m (float[{rows},8] x) => ({made}) {{ {nodes} }}"
    return written(build(text, used), folder / "m.onnx")


def feeds(count: int) -> CalibrationSet:
    return CalibrationSet(
        [{"x": normal(1, 8, seed=seed)} for seed in range(count)], "evaluation"
    )


def examined(
    path: Path, count: int = 16, stated: tuple[str, ...] = ()
) -> tuple[Examined, dict[str, str]]:
    """What was found, and what was said, by code."""
    kinds = output_kinds(graph.load(path), dict.fromkeys(stated, "class"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = examine(path, feeds(count), kinds, stated=stated)
    said = [one.message for one in caught if isinstance(one.message, CompressionWarning)]
    return found, {one.code: str(one) for one in said}


@pytest.mark.parametrize("case", GRAPHS)
def test_a_poor_yardstick_is_told_and_a_good_one_is_not(tmp_path: Path, case: str) -> None:
    _, said = examined(model(tmp_path, case))
    assert list(said)[:1] == ([TOLD[case]] if case in TOLD else [])


def test_the_layer_that_draws_numbers_is_named(tmp_path: Path) -> None:
    found, said = examined(model(tmp_path, "noise"))
    assert "RandomNormalLike" in said["not_deterministic"]
    assert found.doubt is not None


def test_an_original_that_is_broken_everywhere_verifies_nothing(tmp_path: Path) -> None:
    assert examined(model(tmp_path, "not finite"))[0].doubt is None
    doubt = examined(model(tmp_path, "nothing finite"))[0].doubt
    assert doubt is not None
    assert "not finite" in doubt


def test_figures_with_one_that_is_always_largest_are_no_classes(tmp_path: Path) -> None:
    path = model(tmp_path, "one answer")
    assert examined(path)[0].kinds == {"y": "value"}
    # Said by the recipe, or seen in the graph, it stays; of few samples it says nothing.
    assert examined(path, stated=("y",))[0].kinds == {"y": "class"}
    assert examined(path, count=4) == (Examined({"y": "class"}), {})
    assert examined(model(tmp_path, "one class"))[0].kinds == {"y": "class"}


def test_a_model_that_ignores_its_input_verifies_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data.npz"
    np.savez(data, x=normal(64, 8, seed=5))
    report = compress(
        model(tmp_path, "a constant"),
        "int8",
        out=tmp_path / "out",
        calibration=data,
        quiet=lambda: nullcontext(False),
    )
    assert report.verdict.outcome == "not_verified"
    assert "answers all samples alike" in report.verdict.sentence
    assert "constant_output" in {one.code for one in report.warnings}


def test_a_map_as_output_is_refused_with_its_remedy(tmp_path: Path) -> None:
    """As skl2onnx exports classifiers."""
    made = build("m (float[n,8] x) => (float[n,8] p) { p = Softmax (x) }", {})
    made.graph.node.append(
        onnx.helper.make_node(
            "ZipMap", ["p"], ["q"], domain="ai.onnx.ml", classlabels_int64s=list(range(8))
        )
    )
    of_floats = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    maps = onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, of_floats)
    kind = onnx.helper.make_sequence_type_proto(maps)
    made.graph.output.append(onnx.helper.make_value_info("q", kind))
    made.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 1))
    with pytest.raises(Exception, match="'q' is no tensor but a sequence of maps") as caught:
        graph.load(written(made, tmp_path / "m.onnx"))
    assert "zipmap" in str(getattr(caught.value, "hint", ""))
