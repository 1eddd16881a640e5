import json
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Literal

import onnx_ir as ir
import onnxruntime as ort
import pytest

from worker.compression import CompressionWarning, PassFailed, Recipe, Report, compress
from worker.compression.passes import Context, Pass, StaticQuantization
from worker.compression.pipeline import by_hand
from worker.compression.subject import Subject, prepare

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
PRUNED_INT8 = {
    "passes": [
        {"method": "magnitude_pruning", "amount": 0.3},
        {"method": "graph_cleaning"},
        {"method": "static_quantization"},
    ]
}


def loud() -> nullcontext[bool]:
    """No waiting: these tests are not about time."""
    return nullcontext(False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path, list[float]]:
    out = tmp_path_factory.mktemp("out")
    shares: list[float] = []
    report = compress(
        DIGITS / "digits.onnx",
        PRUNED_INT8,
        out=out,
        calibration=DIGITS / "calibration.npz",
        evaluation=DIGITS / "evaluation.npz",
        progress=lambda stage, share, message: shares.append(share),
        quiet=loud,
    )
    return report, out, shares


def test_the_report_on_disk_is_strict_json_and_reads_back_the_same(
    digits: tuple[Report, Path, list[float]],
) -> None:
    report, out, _ = digits

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (out / "report.json").read_text()
    json.loads(text, parse_constant=refuse)
    assert Report.model_validate_json(text) == report


def test_sizes_in_the_report_are_those_of_the_files(
    digits: tuple[Report, Path, list[float]],
) -> None:
    report, out, _ = digits
    assert report.before.bytes == (DIGITS / "digits.onnx").stat().st_size
    assert report.after.bytes == (out / "model.onnx").stat().st_size
    assert report.after.bytes < 0.4 * report.before.bytes


def test_every_layer_of_the_original_is_found_again_as_int8(
    digits: tuple[Report, Path, list[float]],
) -> None:
    report, _, _ = digits
    assert len(report.layers) == 5
    assert {layer.precision for layer in report.layers} == {"int8"}
    assert all(layer.after and layer.after.kernel for layer in report.layers)
    assert all("/" in layer.name for layer in report.layers), "layers bear the upload's names"


def test_what_was_pruned_stays_zero_through_cleaning_and_int8(
    digits: tuple[Report, Path, list[float]],
) -> None:
    report, _, _ = digits
    before, after = report.before, report.after
    assert before.nonzero_parameters > 0.99 * before.parameters
    assert after.nonzero_parameters < 0.75 * after.parameters


def test_accuracy_is_judged_on_the_evaluation_labels(
    digits: tuple[Report, Path, list[float]],
) -> None:
    report, _, _ = digits
    assert report.accuracy is not None
    assert report.accuracy.before >= 0.97
    assert report.accuracy.after >= 0.95
    assert report.fidelity is not None
    assert report.fidelity.samples == report.accuracy.samples


def test_progress_only_grows(digits: tuple[Report, Path, list[float]]) -> None:
    _, _, shares = digits
    assert shares == sorted(shares)
    assert shares[-1] < 1


def test_nothing_but_results_is_left_in_the_folder(
    digits: tuple[Report, Path, list[float]],
) -> None:
    _, out, _ = digits
    assert {path.name for path in out.iterdir()} == {
        "model.onnx",
        "report.json",
        "report.html",
        "bundle.zip",
    }


def test_the_same_recipe_gives_the_same_bytes(
    digits: tuple[Report, Path, list[float]], tmp_path: Path
) -> None:
    report, out, _ = digits
    compress(
        DIGITS / "digits.onnx",
        report.reproduce.recipe,
        out=tmp_path,
        calibration=DIGITS / "calibration.npz",
        evaluation=DIGITS / "evaluation.npz",
        quiet=loud,
    )
    assert (tmp_path / "model.onnx").read_bytes() == (out / "model.onnx").read_bytes()


def test_without_data_nothing_is_verified(tmp_path: Path) -> None:
    report = compress(DIGITS / "digits.onnx", "int8", out=tmp_path, quiet=loud)
    assert report.verdict.outcome == "not_verified"
    assert report.fidelity is not None
    assert report.fidelity.source == "synthetic"
    ort.InferenceSession(str(tmp_path / "model.onnx"))


class Fails(Pass):
    method: Literal["fails"] = "fails"

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        raise KeyError("conv7")


class Breaks(Pass):
    """Leaves a graph that loads nowhere."""

    method: Literal["breaks"] = "breaks"

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        for node in model.graph:
            node.op_type = "NoSuchOperator"
        return model


class Warns(Pass):
    method: Literal["warns"] = "warns"

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        warnings.warn(CompressionWarning("conv1 is special", code="special"), stacklevel=1)
        warnings.warn("for developers only", DeprecationWarning, stacklevel=1)
        return model


def subject(workdir: Path) -> Subject:
    return prepare(
        DIGITS / "digits.onnx",
        Recipe.parse("int8"),
        workdir=workdir,
        progress=lambda stage, share, message: None,
        measure=lambda path, feed: None,
        quiet=loud,
        heard=list,
    )


@pytest.mark.parametrize(
    ("broken", "code", "words"),
    [(Fails(), "pass_failed", "conv7"), (Breaks(), "result_does_not_run", "NoSuchOperator")],
)
def test_a_pass_that_fails_is_named_with_the_reason(
    broken: Pass, code: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(PassFailed, match=broken.method) as failed:
        by_hand(subject(tmp_path), [broken], tmp_path / "out")  # type: ignore[list-item]
    assert failed.value.code == code
    assert words in failed.value.message
    assert "\n" not in failed.value.message


def test_a_warning_of_a_pass_reaches_the_report(tmp_path: Path) -> None:
    report = by_hand(subject(tmp_path), [Warns()], tmp_path / "out")  # type: ignore[list-item]
    assert [(one.code, one.message) for one in report.warnings] == [
        ("special", "conv1 is special")
    ]


def test_a_layer_kept_float_says_why(tmp_path: Path) -> None:
    passes = [StaticQuantization(keep_float=["/classifier/Gemm"])]
    report = by_hand(subject(tmp_path), passes, tmp_path / "out")  # type: ignore[arg-type]
    (kept,) = [layer for layer in report.layers if layer.name == "/classifier/Gemm"]
    assert kept.precision == "float32"
    assert kept.reason == "kept float as asked"


def test_what_the_conversion_fixed_is_said_in_the_report(tmp_path: Path) -> None:
    report = compress(
        DIGITS / "digits.onnx",
        "prune-l1",
        out=tmp_path,
        notes=["the batch size is fixed at 4"],
        quiet=loud,
    )
    said = [(one.code, one.message) for one in report.warnings]
    assert ("conversion_note", "the batch size is fixed at 4") in said
