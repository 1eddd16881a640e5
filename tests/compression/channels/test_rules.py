"""What single operators tie, what they pin and why, and what is rewritten after a cut."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.compression.channels.parts import PADDED, Feed, conv, image, linear
from tests.models import build, normal, opened
from worker.compression.channels import Survey, survey
from worker.compression.channels.proof import TOLERANCE


def surveyed(model: onnx.ModelProto, folder: Path, feeds: list[Feed] | None = None) -> Survey:
    found = survey(opened(model), feeds or [image(0), image(1)], folder=folder, seed=0)
    assert [verdict for verdict in found.verdicts if not verdict.proved] == []
    half = [unit for group in found.groups for unit in group.units[::2][1:]]
    assert found.proof.of_cut(found.structure.cut(half)) <= TOLERANCE
    return found


def reasons(found: Survey) -> dict[str, str]:
    return {group.name: group.reason or "" for group in found.structure.pinned}


def between(
    text: str, channels: int, made: int, *, opset: int = 17, **more: np.ndarray
) -> onnx.ModelProto:
    """Two convolutions with `text` from h to k between them; k has `made` channels."""
    weights = conv("first", channels, 3) | conv("second", 8, made) | linear("fc", 8, 5) | more
    graph = f"""
    between (float[n,3,8,8] x) => (float[n,5] y) {{
        [first] f = Conv <{PADDED}> (x, "first.weight", "first.bias")
        h = Relu (f)
        {text}
        [second] s = Conv <{PADDED}> (k, "second.weight", "second.bias")
        r = Relu (s)
        p = GlobalAveragePool (r)
        q = Flatten (p)
        [fc] y = Gemm (q, "fc.weight", "fc.bias")
    }}
    """
    return build(graph, weights, opset=opset)


PADS = {
    "constant on channels": (
        "k = Pad (h, pads)", 16, {"pads": np.array([0, 1, 0, 0, 0, 3, 0, 0])}, 17,
    ),
    "value on space": (
        "k = Pad (h, pads, two)", 12,
        {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "two": np.float32(2).reshape(())}, 17,
    ),
    "reflected space": (
        'k = Pad <mode = "reflect"> (h, pads)', 12,
        {"pads": np.array([0, 0, 2, 1, 0, 0, 1, 2])}, 17,
    ),
    "named axes": (
        "k = Pad (h, pads, , axes)", 15,
        {"pads": np.array([1, 1, 1, 2]), "axes": np.array([2, 1])}, 18,
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", PADS)
def test_channels_pass_a_pad(how: str, tmp_path: Path) -> None:
    text, made, more, opset = PADS[how]
    found = surveyed(between(text, 12, made, opset=opset, **more), tmp_path)
    assert "first.weight" in [group.name for group in found.groups]


def test_channels_mirrored_by_a_pad_stay(tmp_path: Path) -> None:
    pads = np.array([0, 1, 0, 0, 0, 2, 0, 0])
    found = surveyed(between('k = Pad <mode = "edge"> (h, pads)', 12, 15, pads=pads), tmp_path)
    assert "pads this axis" in reasons(found)["first.weight"]


@pytest.mark.parametrize("op", ["LRN <size = 3>", "Hardmax <axis = 1>"])
def test_what_mixes_channels_pins_them_with_its_name(op: str, tmp_path: Path) -> None:
    found = surveyed(between(f"[mixer] k = {op} (h)", 12, 12), tmp_path)
    assert "mixer" in reasons(found)["first.weight"]
    assert [group.name for group in found.groups] == ["second.weight"]


def test_an_operator_of_another_domain_is_never_guessed(tmp_path: Path) -> None:
    model = between("[own] k = com.microsoft.QuickGelu (h)", 12, 12)
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    assert reasons(surveyed(model, tmp_path))["first.weight"] == "QuickGelu own has no rule"


def test_every_other_channel_is_picked_anew_after_a_cut(tmp_path: Path) -> None:
    text = "k = Slice (h, start, end, axis, step)"
    given = {"start": 1, "end": 12, "axis": 1, "step": 3}
    constants = {name: np.array([value]) for name, value in given.items()}
    found = surveyed(between(text, 12, 4, **constants), tmp_path)
    assert len(found.groups[0].units) == 4


def test_a_weight_read_twice_ties_both_places(tmp_path: Path) -> None:
    weights = {"w": normal(6, 6, seed=1), "v": normal(6, 4, seed=2)}
    text = """
    tied (float[n,6] x) => (float[n,4] y) {
        [one] a = MatMul (x, w)
        b = Relu (a)
        [two] c = MatMul (b, w)
        d = Relu (c)
        [out] y = MatMul (d, v)
    }
    """
    feeds = [{"x": normal(3, 6, seed=seed)} for seed in range(2)]
    found = surveyed(build(text, weights), tmp_path, feeds)
    # What the first reads is the input, so that the rows of w stay, and with them its columns.
    assert "input x keeps its shape" in reasons(found)["w"]


def test_a_vector_that_two_layers_share_ties_nothing(tmp_path: Path) -> None:
    weights = conv("a", 8, 3) | conv("b", 8, 8) | linear("fc", 8, 5)
    del weights["b.bias"]
    text = f"""
    shared (float[n,3,8,8] x) => (float[n,5] y) {{
        [a] s = Conv <{PADDED}> (x, "a.weight", "a.bias")
        sr = Relu (s)
        [b] t = Conv <{PADDED}> (sr, "b.weight", "a.bias")
        tr = Relu (t)
        p = GlobalAveragePool (tr)
        f = Flatten (p)
        [fc] y = Gemm (f, "fc.weight", "fc.bias")
    }}
    """
    found = surveyed(build(text, weights), tmp_path)
    assert [group.name for group in found.groups] == ["a.weight", "b.weight"]


def test_an_einsum_makes_and_sums_channels(tmp_path: Path) -> None:
    weights = {"w": normal(6, 2, 8, seed=1), "v": normal(2, 8, 4, seed=2)}
    text = """
    einsum (float[n,t,6] x) => (float[n,t,4] y) {
        a = Einsum <equation = "btd,dhe->bthe"> (x, w)
        b = Relu (a)
        y = Einsum <equation = "bthe,heo->bto"> (b, v)
    }
    """
    feeds = [{"x": normal(2, 3, 6, seed=seed)} for seed in range(2)]
    found = surveyed(build(text, weights), tmp_path, feeds)
    assert sorted(len(group.units) for group in found.groups) == [2, 8]


def test_an_initial_state_of_the_batch_s_size_shrinks_with_the_units(tmp_path: Path) -> None:
    weights = linear("fc", 8, 5) | {
        "w": normal(1, 32, 6, seed=1), "r": normal(1, 32, 8, seed=2),
        "b": normal(1, 64, seed=3),
        "zero": np.zeros((1, 1, 1), np.float32), "one": np.array([1]), "two": np.array([2]),
        "units": np.array([8]), "first": np.array([0]),
    }  # fmt: skip
    text = """
    states (float[t,n,6] x) => (float[n,5] y) {
        s = Shape (x)
        n = Slice (s, one, two)
        j = Concat <axis = 0> (one, n, units)
        h0 = Expand (zero, j)
        c0 = ConstantOfShape (j)
        [lstm] l, h = LSTM <hidden_size = 8> (x, "w", "r", "b", , h0, c0)
        q = Squeeze (h, first)
        [fc] y = Gemm (q, "fc.weight", "fc.bias")
    }
    """
    feeds: list[Feed] = [{"x": normal(5, batch, 6, seed=batch)} for batch in (1, 3)]
    found = surveyed(build(text, weights), tmp_path, feeds)
    assert [group.name for group in found.groups] == ["w"]


def test_sizes_read_for_a_resize_do_not_pin(tmp_path: Path) -> None:
    text = """
        all = Shape (h)
        kept = Slice (all, zero, two)
        wanted = Concat <axis = 0> (kept, size)
        k = Resize <mode = "linear"> (h, , , wanted)
    """
    more = {"zero": np.array([0]), "two": np.array([2]), "size": np.array([16, 16])}
    found = surveyed(between(text, 12, 12, **more), tmp_path)
    assert "first.weight" in [group.name for group in found.groups]


def test_query_key_and_value_of_one_product_are_pruned_by_heads(tmp_path: Path) -> None:
    weights = linear("qkv", 16, 48) | linear("out", 16, 5) | {
        "three": np.array([0, 0, 3, 16]), "heads": np.array([0, 0, 4, 4]),
        "flat": np.array([0, 0, -1]), "q": np.array(0), "k": np.array(1), "v": np.array(2),
    }  # fmt: skip
    part = """
        {0}1 = Gather <axis = 2> (r, {0})
        {0}2 = Reshape ({0}1, heads)
        {0}3 = Transpose <perm = [0, 2, {1}]> ({0}2)
    """
    text = f"""
    attention (float[n,t,16] x) => (float[n,t,5] y) {{
        m = MatMul (x, "qkv.weight")
        a = Add (m, "qkv.bias")
        r = Reshape (a, three)
        {part.format("q", "1, 3")} {part.format("k", "3, 1")} {part.format("v", "1, 3")}
        s = MatMul (q3, k3)
        p = Softmax (s)
        c = MatMul (p, v3)
        t = Transpose <perm = [0, 2, 1, 3]> (c)
        f = Reshape (t, flat)
        o = MatMul (f, "out.weight")
        y = Add (o, "out.bias")
    }}
    """
    feeds = [{"x": normal(2, 3, 16, seed=seed)} for seed in range(2)]
    found = surveyed(build(text, weights), tmp_path, feeds)
    assert [(group.name, len(group.units)) for group in found.groups] == [("qkv.weight", 4)]


def test_a_matrix_may_read_what_was_split_into_two(tmp_path: Path) -> None:
    weights = {"w": normal(6, 12, seed=1), "v": normal(6, 4, seed=2), "s": np.array([0, 2, 6])}
    text = """
    halves (float[n,6] x) => (float[n,2,4] y) {
        a = MatMul (x, w)
        b = Reshape (a, s)
        y = MatMul (b, v)
    }
    """
    feeds = [{"x": normal(3, 6, seed=seed)} for seed in range(2)]
    surveyed(build(text, weights), tmp_path, feeds)


def test_half_precision_is_proved_in_single(tmp_path: Path) -> None:
    weights = {"w": normal(8, 12, seed=1), "v": normal(12, 4, seed=2)}
    text = """
    half (float16[n,8] x) => (float16[n,4] y) {
        a = MatMul (x, w)
        b = Relu (a)
        y = MatMul (b, v)
    }
    """
    halves = {name: array.astype(np.float16) for name, array in weights.items()}
    feeds = [{"x": normal(64, 8, seed=seed).astype(np.float16)} for seed in range(2)]
    found = surveyed(build(text, halves), tmp_path, feeds)
    assert found.verdicts[0].error is not None
    assert found.verdicts[0].error < 1e-5


def test_weights_that_are_quantized_already_are_listed(tmp_path: Path) -> None:
    weights = {
        "w": np.arange(-48, 48, dtype=np.int8).reshape(8, 12),
        "scale": np.float32(0.01).reshape(()),
        "v": normal(12, 4, seed=2),
    }  # fmt: skip
    text = """
    quantized (float[n,8] x) => (float[n,4] y) {
        d = DequantizeLinear (w, scale)
        [first] a = MatMul (x, d)
        b = Relu (a)
        y = MatMul (b, v)
    }
    """
    feeds = [{"x": normal(3, 8, seed=seed)} for seed in range(2)]
    found = survey(opened(build(text, weights)), feeds, folder=tmp_path, seed=0)
    assert "input x keeps its shape" in dict(found.structure.idle)["w"]
