"""An encoder and its decoder, judged by the tokens they come to together."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from tests.models import build, normal, written
from worker.compression import CompressionError, compress
from worker.compression.calibration import CalibrationSet
from worker.compression.fidelity.decoding import STEPS, pair

WORDS, WIDTH = 40, 16


def encoder(path: Path, *, spoilt: bool = False) -> Path:
    text = """
    encoder (int64[n,s] input_ids, int64[n,s] attention_mask) => (float[n,s,16] states) {
        e = Gather (words, input_ids)
        [mix] m = MatMul (e, mix_w)
        states = Tanh (m)
    }
    """
    mix = normal(WIDTH, WIDTH, seed=2, scale=0.4)
    weights = {"words": normal(WORDS, WIDTH, seed=1), "mix_w": -mix if spoilt else mix}
    return written(build(text, weights), path)


def decoder(path: Path, *, length: str = "t", extra: str = "") -> Path:
    """Each token looks at the encoder's states, and at nothing else but itself."""
    text = f"""
    decoder (int64[n,{length}] ids, float[n,s,16] states, int64[n,s] encoder_mask{extra})
        => (float[n,{length},40] logits) {{
        e = Gather (words, ids)
        [query] q = MatMul (e, query_w)
        k = Transpose <perm = [0, 2, 1]> (states)
        scores = MatMul (q, k)
        f = Cast <to = 1> (encoder_mask)
        hidden = Sub (f, one)
        far = Mul (hidden, large)
        bias = Unsqueeze (far, middle)
        masked = Add (scores, bias)
        a = Softmax <axis = 2> (masked)
        seen = MatMul (a, states)
        both = Add (seen, q)
        [head] logits = MatMul (both, head_w)
    }}
    """
    weights = {
        "words": normal(WORDS, WIDTH, seed=3),
        "query_w": normal(WIDTH, WIDTH, seed=4, scale=0.5),
        "head_w": normal(WIDTH, WORDS, seed=5),
        "one": np.float32(1),
        "large": np.float32(1e4),
        "middle": np.array([1]),
    }
    return written(build(text, weights), path)


def sent(*feeds: dict[str, np.ndarray]) -> CalibrationSet:
    return CalibrationSet(feeds, "evaluation")


def text_samples(path: Path, count: int = 64) -> Path:
    rng = np.random.default_rng(7)
    feeds = {}
    for number in range(count):
        length = int(rng.integers(4, 9))
        feeds[f"{number}|input_ids"] = rng.integers(0, WORDS, (1, length))
        feeds[f"{number}|attention_mask"] = np.ones((1, length), np.int64)
    np.savez(path, **feeds)
    return path


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
