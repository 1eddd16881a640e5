from contextlib import nullcontext
from pathlib import Path

import pytest
from onnx import parser

from tests import models
from worker.compression import Report, compress

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


def quiet() -> nullcontext[bool]:
    return nullcontext(True)


def automatic(out: Path, goal: dict[str, object]) -> Report:
    return compress(
        DIGITS / "digits.onnx",
        {"goal": goal},
        out=out,
        calibration=DIGITS / "calibration.npz",
        evaluation=DIGITS / "evaluation.npz",
        quiet=quiet,
    )


@pytest.fixture(scope="module")
def smallest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("smallest")
    return automatic(out, {"objective": "size"}), out


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


def test_either_it_is_better_or_the_upload_comes_back(smallest: tuple[Report, Path]) -> None:
    report, out = smallest
    if not came_back(report, out):
        assert report.after.bytes <= 0.95 * report.before.bytes


def test_a_budget_too_short_to_try_much_never_gives_a_worse_model(tmp_path: Path) -> None:
    report = automatic(tmp_path, {"time_budget_s": 1})
    if not came_back(report, tmp_path):
        assert report.latency[0].interval[0] >= 1.02


def came_back(report: Report, out: Path) -> bool:
    """Whether the upload was returned, byte for byte; what is not must be measured better."""
    same = (out / "model.onnx").read_bytes() == (DIGITS / "digits.onnx").read_bytes()
    assert report.verdict.outcome in ("better", "not_better")
    assert same == (report.verdict.outcome == "not_better")
    if not same:
        assert report.accuracy is not None
        assert report.accuracy.drop <= 0.01
    return same


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        ({"objective": "size", "max_bytes": 1000}, "limit"),
        ({"max_latency_ms": 1e-6}, "limit"),
    ],
)
def test_a_goal_that_nothing_meets_gives_back_the_upload_and_says_why(
    goal: dict[str, object], words: str, tmp_path: Path
) -> None:
    report = automatic(tmp_path, goal)
    assert report.verdict.outcome == "not_better"
    assert words in report.verdict.sentence
    upload = (DIGITS / "digits.onnx").read_bytes()
    assert (tmp_path / "model.onnx").read_bytes() == upload
    assert report.after.bytes == report.before.bytes


def test_what_the_search_chose_can_be_made_again_by_hand(
    smallest: tuple[Report, Path], tmp_path: Path
) -> None:
    report, out = smallest
    candidate = next(one for one in report.candidates if one.file)
    compress(
        DIGITS / "digits.onnx",
        candidate.recipe,
        out=tmp_path,
        calibration=DIGITS / "calibration.npz",
        evaluation=DIGITS / "evaluation.npz",
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
    report = compress(
        DIGITS / "digits.onnx",
        {"goal": {"time_budget_s": 5}},
        out=tmp_path / "out",
        calibration=DIGITS / "calibration.npz",
        quiet=lambda: nullcontext(False),
    )
    assert report.verdict.outcome == "not_better"
    assert "the machine was too busy to measure" in report.verdict.sentence
    assert "nothing that was tried is" not in report.verdict.sentence
