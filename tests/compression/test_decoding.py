"""An encoder and its decoder, judged by the tokens they come to together."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from tests.pairs import decoder, encoder, text_samples
from worker.compression import CompressionError, compress
from worker.compression.calibration import CalibrationSet
from worker.compression.fidelity.decoding import STEPS, pair


def sent(*feeds: dict[str, np.ndarray]) -> CalibrationSet:
    return CalibrationSet(feeds, "evaluation")


def test_tokens_follow_from_the_first_one_and_the_encoder(tmp_path: Path) -> None:
    both = pair(encoder(tmp_path / "e.onnx"), decoder(tmp_path / "d.onnx"), start=3)
    feeds = sent(
        {"input_ids": np.array([[1, 2, 3]]), "attention_mask": np.ones((1, 3), np.int64)},
        {"input_ids": np.array([[9, 8, 7]]), "attention_mask": np.ones((1, 3), np.int64)},
    )
    one, other = both.tokens(tmp_path / "e.onnx", feeds)
    assert one.shape == (1, STEPS)
    assert (one != other).any()
    # A decoder of a fixed length is given padding behind the tokens so far.
    fixed = pair(
        encoder(tmp_path / "e.onnx"), decoder(tmp_path / "f.onnx", length="9"), start=3
    )
    short = fixed.tokens(tmp_path / "e.onnx", feeds)[0]
    assert short.tolist() == one[:, :8].tolist()


def test_a_result_is_judged_by_what_the_pair_decodes(tmp_path: Path) -> None:
    path, partner = encoder(tmp_path / "e.onnx"), decoder(tmp_path / "d.onnx")
    report = compress(
        path,
        "int8",
        out=tmp_path / "out",
        calibration=text_samples(tmp_path / "data.npz"),
        partner=partner,
        quiet=lambda: nullcontext(False),
    )
    assert report.accuracy is not None
    assert report.accuracy.metric == "greedy_decoding"
    assert report.accuracy.before == 1.0
    assert report.accuracy.samples == 16
    assert "greedy_decoding" in report.verdict.sentence
    assert "partner" in report.reproduce.sha256


def test_a_spoilt_encoder_shows_in_the_tokens(tmp_path: Path) -> None:
    both = pair(encoder(tmp_path / "e.onnx"), decoder(tmp_path / "d.onnx"))
    feeds = sent(
        *(
            {"input_ids": np.array([[i, i + 1]]), "attention_mask": np.ones((1, 2), np.int64)}
            for i in range(8)
        )
    )
    right = both.tokens(both.model, feeds)
    wrong = both.tokens(encoder(tmp_path / "s.onnx", spoilt=True), feeds)
    assert (
        np.mean([np.mean(one == other) for one, other in zip(right, wrong, strict=True)]) < 0.8
    )


@pytest.mark.parametrize("case", ["twice the encoder", "a cache"])
def test_what_does_not_fit_together_is_refused(tmp_path: Path, case: str) -> None:
    path = encoder(tmp_path / "e.onnx")
    partner = path
    if case == "a cache":
        partner = decoder(tmp_path / "d.onnx", extra=", float[n,2,t,8] past_key")
    with pytest.raises(CompressionError, match="do not fit together") as caught:
        pair(path, partner)
    assert caught.value.code == "partner_mismatch"
    assert "past key" in (caught.value.hint or "")
