from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from onnx import parser

from tests import models
from worker.compression import Report, compress
from worker.compression.passes import RuntimeFusion
from worker.compression.search.trial import SPENT

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def quiet() -> nullcontext[bool]:
    return nullcontext(True)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few of the digits: what is tested here does not need more."""
    path = tmp_path_factory.mktemp("samples") / "digits.npz"
    with (
        np.load(DIGITS / "calibration.npz") as every,
        np.load(DIGITS / "evaluation.npz") as labelled,
    ):
        assert "labels" in labelled
        kept = {name: labelled[name][:160] for name in labelled.files}
        assert set(every.files) <= set(kept)
    np.savez(path, **kept)
    return path


def automatic(
    samples: Path,
    out: Path,
    goal: dict[str, object],
    quiet: Callable[[], nullcontext[bool]] = quiet,
) -> Report:
    return compress(
        DIGITS / "digits.onnx", {"goal": goal}, out=out, calibration=samples, quiet=quiet
    )


@pytest.fixture(scope="module")
def smallest(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("smallest")
    # Bytes need no quiet machine: all of its latencies are unreliable.
    return automatic(samples, out, {"objective": "size"}, lambda: nullcontext(False)), out


def test_every_candidate_says_what_became_of_it(smallest: tuple[Report, Path]) -> None:
    report, out = smallest
    assert len(report.candidates) >= 3
    assert all(candidate.reason for candidate in report.candidates)
    for candidate in report.candidates:
        assert candidate.recipe.passes != "auto"
        if candidate.file:
            assert (out / candidate.file).stat().st_size == candidate.bytes


def test_a_result_has_lost_channels_or_the_report_says_why_not(
    smallest: tuple[Report, Path],
) -> None:
    report, _ = smallest
    passes = report.reproduce.recipe.passes
    pruned = passes != "auto" and any(one.method == "channel_pruning" for one in passes)
    told = [one.message for one in report.warnings if one.code == "not_pruned"]
    assert pruned != bool(told)
    assert all(one.startswith("no channels were pruned: ") for one in told)


def test_no_file_of_the_front_is_beaten_in_everything(smallest: tuple[Report, Path]) -> None:
    front = [one for one in smallest[0].candidates if one.on_front]
    assert front
    for one in front:
        assert not any(
            other.bytes < one.bytes
            and other.latency_ms < one.latency_ms
            and other.drop < one.drop
            for other in front
        )


def test_a_smaller_file_needs_no_quiet_machine(smallest: tuple[Report, Path]) -> None:
    report, out = smallest
    assert not came_back(report, out)
    assert report.after.bytes <= 0.5 * report.before.bytes
    assert {one.verdict for one in report.latency} == {"unreliable"}
    assert "Latency is not known" in report.verdict.sentence


def test_a_budget_too_short_to_try_much_never_gives_a_worse_model(
    samples: Path, tmp_path: Path
) -> None:
    report = automatic(samples, tmp_path, {"time_budget_s": 1})
    assert came_back(report, tmp_path)
    assert {one.reason for one in report.candidates} == {SPENT}
    assert "report_shortened" in {one.code for one in report.warnings}


def test_the_runtimes_own_graph_is_a_candidate_with_its_label(
    samples: Path, tmp_path: Path
) -> None:
    report = automatic(samples, tmp_path, {"time_budget_s": 12})
    (fused,) = (one for one in report.candidates if "ORT-only" in one.name)
    assert fused.recipe.passes[-1] == RuntimeFusion()
    portable = max(one.speedup or 0 for one in report.candidates if one is not fused)
    # What ONNX Runtime fuses at every load is no gain: it must not tie users to one runtime.
    assert not fused.chosen or (fused.speedup or 0) > portable


def came_back(report: Report, out: Path) -> bool:
    """Whether the upload was returned, byte for byte; what is not must be measured better."""
    same = (out / "model.onnx").read_bytes() == (DIGITS / "digits.onnx").read_bytes()
    assert report.verdict.outcome in ("better", "not_better")
    assert same == (report.verdict.outcome == "not_better")
    if not same:
        assert report.accuracy is not None
        assert report.accuracy.drop <= 0.01
    return same


def test_a_limit_that_nothing_meets_gives_back_the_upload_and_says_why(
    samples: Path, tmp_path: Path
) -> None:
    goal = {"objective": "size", "max_bytes": 1000, "time_budget_s": 10}
    report = automatic(samples, tmp_path, goal)
    assert came_back(report, tmp_path)
    assert report.after.bytes == report.before.bytes
    assert not any(one.chosen for one in report.candidates)


def test_what_the_search_chose_can_be_made_again_by_hand(
    smallest: tuple[Report, Path], samples: Path, tmp_path: Path
) -> None:
    report, out = smallest
    candidate = next(one for one in report.candidates if one.file)
    compress(
        DIGITS / "digits.onnx",
        candidate.recipe,
        out=tmp_path,
        calibration=samples,
        quiet=lambda: nullcontext(False),
    )
    front = out / str(candidate.file)
    assert (tmp_path / "model.onnx").read_bytes() == front.read_bytes()


def test_a_method_that_changed_nothing_is_no_candidate(tmp_path: Path) -> None:
    model = parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 17]>'
        "g (float[1, 64] x) => (float[1, 64] y) { e = Exp(x) y = Tanh(e) }"
    )
    path = models.written(model, tmp_path / "model.onnx")
    report = compress(path, {"goal": {"time_budget_s": 120}}, out=tmp_path / "out", quiet=quiet)
    said = {one.name: one for one in report.candidates}
    assert said["int8"].bytes is None
    assert "nothing was quantized" in said["int8"].reason


def test_a_busy_machine_is_no_finding_about_the_model(tmp_path: Path) -> None:
    path = models.written(models.convnet(), tmp_path / "model.onnx")
    busy = compress(path, {}, out=tmp_path / "out", quiet=lambda: nullcontext(False))
    assert busy.verdict.outcome == "not_better"
    assert "the machine was too busy to measure" in busy.verdict.sentence
    assert "nothing that was tried is" not in busy.verdict.sentence
