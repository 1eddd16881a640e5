"""A small encoder and its decoder, and text for them."""

from pathlib import Path

import numpy as np

from tests.models import build, normal, written

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


def text_samples(path: Path, count: int = 64) -> Path:
    rng = np.random.default_rng(7)
    feeds = {}
    for number in range(count):
        length = int(rng.integers(4, 9))
        feeds[f"{number}|input_ids"] = rng.integers(0, WORDS, (1, length))
        feeds[f"{number}|attention_mask"] = np.ones((1, length), np.int64)
    np.savez(path, **feeds)
    return path
