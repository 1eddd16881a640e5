from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.errors import (
    CompressionWarning,
    InvalidData,
    InvalidRecipe,
    LabelsMismatch,
)
from worker.compression.fidelity import (
    Reference,
    drop,
    interval_end,
    keeps,
    output_kinds,
    worst_sqnr,
)

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\nagraph '
BOUND = {"max_drop": 0.01, "min_sqnr_db": 20.0}


def model(folder, text, name="model.onnx", **constants):
    """A model file from text; constants become initializers."""
    proto = onnx.parser.parse_model(HEAD + text)
    proto.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value), key) for key, value in constants.items()
    )
    onnx.save(proto, folder / name)
    return folder / name


def samples(*feeds, labels=None, source="evaluation"):
    return CalibrationSet(list(feeds), source, labels)


def drawn(count, *shape, seed=0):
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def compared(folder, original, result, given, **kinds):
    stated = kinds or output_kinds(graph.load(original), {})
    reference = Reference(original, given, stated, workdir=folder)
    return reference.compare(result)


def passes_on(folder, name="passes_on.onnx", shape="N, 4"):
    return model(
        folder, f"(float[{shape}] x) => (float[{shape}] y) {{ y = Identity(x) }}", name
    )


# Kinds

KINDS = {
    "softmax": ("(float[N,8] x) => (float[N,8] y) { y = Softmax(x) }", "class"),
    "softmax of another axis": (
        "(float[N,8,3] x) => (float[N,8,3] y) { y = Softmax <axis=1> (x) }",
        "value",
    ),
    "softmax written out": (
        "(float[N,8] x) => (float[N,8] y)"
        "{ e = Exp(x) s = ReduceSum<keepdims=1>(e, last) y = Div(e, s) }",
        "class",
    ),
    "matrix product with bias": (
        "(float[N,8] x) => (float[N,16] y) { m = MatMul(x, w) y = Add(m, b) }",
        "class",
    ),
    "matrix product per step": (
        "(float[N,T,8] x) => (float[N,T,16] y) { y = MatMul(x, w) }",
        "class",
    ),
    "one figure": ("(float[N,8] x) => (float[N,1] y) { y = MatMul(x, v) }", "value"),
    "sigmoid of a product": (
        "(float[N,8] x) => (float[N,16] y) { m = MatMul(x, w) y = Sigmoid(m) }",
        "value",
    ),
    "layer norm per token": (
        "(float[N,T,384] x) => (float[N,T,384] y) { y = LayerNormalization(x, g, g) }",
        "embedding",
    ),
    "normalized vector": (
        "(float[N,32] x) => (float[N,32] y)"
        "{ n = ReduceL2<axes=[1], keepdims=1>(x) y = Div(x, n) }",
        "embedding",
    ),
    "boxes beside scores": (
        "(float[N,4,100] x, float[N,2,100] z) => (float[N,6,100] y)"
        "{ s = Sigmoid(z) y = Concat<axis=1>(x, s) }",
        "value",
    ),
    "integers": (
        "(float[N,8] x) => (int64[N] y) { y = ArgMax<axis=1, keepdims=0>(x) }",
        "class",
    ),
}


@pytest.mark.parametrize("case", KINDS)
def test_the_kind_of_an_output_is_inferred(tmp_path, case):
    text, kind = KINDS[case]
    constants = {
        "last": np.array([-1]),
        "w": np.ones((8, 16), np.float32),
        "b": np.ones(16, np.float32),
        "v": np.ones((8, 1), np.float32),
        "g": np.ones(384, np.float32),
    }
    used = {
        name: value
        for name, value in constants.items()
        if f"{name})" in text or f"{name}," in text
    }
    loaded = graph.load(model(tmp_path, text, **used))
    assert output_kinds(loaded, {}) == {"y": kind}


def test_a_stated_kind_wins_and_an_unknown_output_is_refused(tmp_path):
    loaded = graph.load(passes_on(tmp_path))
    assert output_kinds(loaded, {"y": "class"}) == {"y": "class"}
    with pytest.raises(InvalidRecipe, match="'z'") as caught:
        output_kinds(loaded, {"z": "class"})
    assert "y" in (caught.value.hint or "")


# Signal and noise


def test_a_model_equals_itself(tmp_path):
    path = passes_on(tmp_path)
    fidelity, accuracy = compared(tmp_path, path, path, samples(*drawn(8, 1, 4)))
    assert accuracy is None
    assert fidelity.outputs[0].identical
    assert fidelity.outputs[0].sqnr_db is None
    assert keeps(fidelity, accuracy, **BOUND)
    assert (drop(fidelity, None), worst_sqnr(fidelity)) == (None, None)


def test_sqnr_is_the_ratio_of_powers(tmp_path):
    path = passes_on(tmp_path)
    louder = model(
        tmp_path, "(float[N,4] x) => (float[N,4] y) { y = Mul(x, k) }", "b.onnx",
        k=np.float32(1.01),
    )  # fmt: skip
    fidelity, _ = compared(tmp_path, path, louder, samples(*drawn(8, 3, 4)))
    one = fidelity.outputs[0]
    assert one.sqnr_db == pytest.approx(40, abs=0.01)
    assert one.cosine == pytest.approx(1)
    largest = max(np.abs(feed["x"]).max() for feed in drawn(8, 3, 4))
    assert one.max_abs == pytest.approx(largest * 0.01, rel=1e-3)
    assert (one.kind, one.drop, one.interval) == ("value", None, None)


def detector(folder, name, scores):
    """Boxes of hundreds of pixels and scores below one in a tensor."""
    return model(
        folder,
        "(float[N,4,50] x, float[N,2,50] z) => (float[N,6,50] y)"
        f"{{ b = Mul(x, k) s = Sigmoid(z) t = {scores} y = Concat<axis=1>(b, t) }}",
        name, k=np.float32(300), nought=np.float32(0),
    )  # fmt: skip


def test_lost_scores_show_beside_boxes_that_are_kept(tmp_path):
    rng = np.random.default_rng(0)
    feeds = [
        {
            "x": rng.random((1, 4, 50)).astype(np.float32),
            "z": rng.standard_normal((1, 2, 50)).astype(np.float32) - 3,
        }
        for _ in range(8)
    ]
    original = detector(tmp_path, "a.onnx", "Identity(s)")
    lost = detector(tmp_path, "b.onnx", "Mul(s, nought)")
    fidelity, _ = compared(tmp_path, original, lost, samples(*feeds))
    one = fidelity.outputs[0]
    assert one.sqnr_db is not None
    assert one.sqnr_db > 50
    assert one.worst_channel is not None
    assert (one.worst_channel.axis, one.worst_channel.index >= 4) == (1, True)
    assert worst_sqnr(fidelity) == pytest.approx(0, abs=0.01)
    assert not keeps(fidelity, None, **BOUND)


def noisy(folder, name, amount, shape, tail="y = Add(x, k)"):
    """Adds the same noise everywhere."""
    sign = np.where(np.arange(np.prod(shape)) % 2, 1, -1).reshape(shape)
    text = ", ".join(map(str, shape))
    return model(
        folder, f"(float[{text}] x) => (float[{text}] y) {{ {tail} }}", name,
        k=(sign * amount).astype(np.float32),
    )  # fmt: skip


def test_a_channel_without_signal_is_not_the_worst(tmp_path):
    feeds = drawn(8, 1, 4)
    for feed in feeds:
        feed["x"][:, 2] = 0
    path = passes_on(tmp_path, shape="1, 4")
    fidelity, _ = compared(
        tmp_path, path, noisy(tmp_path, "b.onnx", 1e-3, (1, 4)), samples(*feeds)
    )
    worst = fidelity.outputs[0].worst_channel
    assert worst is not None
    assert worst.index != 2
    assert keeps(fidelity, None, **BOUND)


def test_an_empty_margin_of_a_picture_is_no_lost_signal(tmp_path):
    convolution = "c = Conv(x, w) y = Sigmoid(c)"
    original = model(
        tmp_path, f"(float[1,1,8,8] x) => (float[1,1,8,8] y) {{ {convolution} }}", "a.onnx",
        w=np.ones((1, 1, 1, 1), np.float32),
    )  # fmt: skip
    other = model(
        tmp_path, f"(float[1,1,8,8] x) => (float[1,1,8,8] y) {{ {convolution} }}", "b.onnx",
        w=np.full((1, 1, 1, 1), 0.98, np.float32),
    )  # fmt: skip
    feeds = [{"x": np.where(np.arange(8) < 4, -9, feed["x"]).astype(np.float32)}
             for feed in drawn(8, 1, 1, 8, 8)]  # fmt: skip
    fidelity, _ = compared(tmp_path, original, other, samples(*feeds))
    worst = fidelity.outputs[0].worst_channel
    assert worst is not None
    assert worst.axis == 1
    assert keeps(fidelity, None, **BOUND)


def test_padding_does_not_count(tmp_path):
    """The result is wrong exactly where the mask is zero."""
    text = "(float[N,T,4] x, int64[N,T] attention_mask) => (float[N,T,4] y) { BODY }"
    original = model(tmp_path, text.replace("BODY", "y = Identity(x)"), "a.onnx")
    body = "m = Cast<to=1>(attention_mask) u = Unsqueeze(m, last) i = Sub(one, u) y = Add(x, i)"
    result = model(
        tmp_path, text.replace("BODY", body), "b.onnx",
        last=np.array([-1]), one=np.float32(1),
    )  # fmt: skip
    mask = np.array([[1, 1, 0, 0, 0]])
    feeds = [feed | {"attention_mask": mask} for feed in drawn(8, 1, 5, 4)]
    for kind in ("value", "embedding", "class"):
        fidelity, _ = compared(tmp_path, original, result, samples(*feeds), y=kind)
        assert drop(fidelity, None) in (None, 0)
        assert fidelity.outputs[0].max_abs == 0


# Broken results

BROKEN = {
    "nan": ("z = Sub(x, x) y = Div(z, z)", 1),
    "infinite": ("z = Sub(x, x) o = Exp(z) y = Div(o, z)", 1),
    "another shape": ("y = Transpose<perm=[1, 0]>(x)", 2),
}


@pytest.mark.parametrize("kind", ["class", "value", "embedding"])
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_output_is_a_total_loss(tmp_path, case, kind):
    text, rows = BROKEN[case]
    result = model(tmp_path, f"(float[N,4] x) => (float[A,B] y) {{ {text} }}", "b.onnx")
    given = samples(*drawn(8, rows, 4))
    fidelity, _ = compared(tmp_path, passes_on(tmp_path), result, given, y=kind)
    assert drop(fidelity, None) == interval_end(fidelity, None) == 1
    assert not fidelity.outputs[0].identical
    assert not keeps(fidelity, None, **BOUND)
    fidelity.model_dump_json()


def test_a_broken_output_shows_where_labels_are_about_another_one(tmp_path):
    text = "(float[N,4] x) => (float[N,4] y, float[N,1] z) { y = Identity(x) BODY }"
    parts = "s = Slice(x, nought, one, one)"
    constants = {"nought": np.array([0]), "one": np.array([1])}
    original = model(
        tmp_path, text.replace("BODY", f"{parts} z = Identity(s)"), "a.onnx", **constants
    )
    broken = model(
        tmp_path,
        text.replace("BODY", f"{parts} d = Sub(s, s) z = Div(d, d)"),
        "b.onnx",
        **constants,
    )
    feeds = drawn(16, 1, 4)
    labels = [feed["x"].argmax(-1) for feed in feeds]
    given = samples(*feeds, labels=labels)
    fidelity, accuracy = compared(tmp_path, original, broken, given, y="class", z="value")
    assert accuracy is not None
    assert (accuracy.after, accuracy.drop) == (1, 0)
    assert drop(fidelity, accuracy) == 1


def test_a_result_that_fails_on_a_sample_is_a_total_loss_and_told(tmp_path):
    fixed = model(
        tmp_path, "(float[N,4] x) => (float[N,4] y) { y = Reshape(x, two) }", "b.onnx",
        two=np.array([2, 4]),
    )  # fmt: skip
    given = samples(*drawn(4, 2, 4), *drawn(4, 3, 4))
    with pytest.warns(CompressionWarning, match="fails on sample 4"):
        fidelity, _ = compared(tmp_path, passes_on(tmp_path), fixed, given)
    assert drop(fidelity, None) == 1


def test_the_originals_own_nan_is_no_loss(tmp_path):
    feeds = drawn(8, 1, 4)
    for feed in feeds:
        feed["x"][0, 1] = np.nan
        feed["x"][0, 2] = -np.inf
    path = passes_on(tmp_path)
    fidelity, _ = compared(tmp_path, path, path, samples(*feeds))
    assert fidelity.outputs[0].identical
    halved = model(
        tmp_path,
        "(float[N,4] x) => (float[N,4] y) { y = Mul(x, k) }",
        "b.onnx",
        k=np.float32(0.5),
    )
    fidelity, _ = compared(tmp_path, path, halved, samples(*feeds))
    assert fidelity.outputs[0].sqnr_db == pytest.approx(6.02, abs=0.01)


def test_samples_that_the_original_refuses_are_the_datas_fault(tmp_path):
    with pytest.raises(InvalidData, match="fails on sample 0"):
        compared(tmp_path, passes_on(tmp_path), passes_on(tmp_path), samples(*drawn(2, 1, 5)))
    with pytest.raises(InvalidData, match="no samples"):
        compared(tmp_path, passes_on(tmp_path), passes_on(tmp_path), samples())


# Classes and embeddings


def turned(folder, name, places):
    """Moves entries along the last axis of some samples: those whose first value is below 0."""
    return model(
        folder,
        "(float[N,4] x) => (float[N,4] y)"
        "{ f = Slice(x, nought, one, one) c = Less(f, zero)"
        "  g = Gather<axis=1>(x, to) y = Where(c, g, x) }",
        name, nought=np.array([0]), one=np.array([1]), zero=np.float32(0), to=np.array(places),
    )  # fmt: skip


def test_the_drop_of_a_class_is_the_share_of_changed_answers(tmp_path):
    feeds = drawn(40, 1, 4)
    changed = np.mean([feed["x"][0, 0] < 0 for feed in feeds])
    fidelity, _ = compared(
        tmp_path, passes_on(tmp_path), turned(tmp_path, "b.onnx", [1, 2, 3, 0]),
        samples(*feeds), y="class",
    )  # fmt: skip
    one = fidelity.outputs[0]
    assert one.drop == pytest.approx(changed)
    assert one.argmax_agreement == pytest.approx(1 - changed)
    assert one.interval is not None
    assert one.interval[0] < changed < one.interval[1]
    assert interval_end(fidelity, None) == one.interval[1]


def test_integers_are_compared_by_agreement(tmp_path):
    text = "(float[N,4] x) => (int64[N] y) {{ {} y = ArgMax<axis=1, keepdims=0>(z) }}"
    original = model(tmp_path, text.format("z = Identity(x)"), "a.onnx")
    negated = model(tmp_path, text.format("z = Neg(x)"), "b.onnx")
    fidelity, _ = compared(tmp_path, original, negated, samples(*drawn(8, 5, 4)))
    assert fidelity.outputs[0].kind == "class"
    assert fidelity.outputs[0].sqnr_db is None
    assert drop(fidelity, None) == 1


def test_the_drop_of_an_embedding_is_its_angle(tmp_path):
    result = noisy(tmp_path, "b.onnx", 1.0, (1, 64))
    feeds = [{"x": np.ones((1, 64), np.float32)}] * 8
    original = passes_on(tmp_path, shape="1, 64")
    fidelity, _ = compared(tmp_path, original, result, samples(*feeds), y="embedding")
    one = fidelity.outputs[0]
    assert one.drop == pytest.approx(1 - np.sqrt(0.5), abs=1e-5)
    assert one.cosine == pytest.approx(np.sqrt(0.5), abs=1e-5)
    assert one.interval == pytest.approx((one.drop, one.drop))


def test_value_outputs_are_bound_by_sqnr_beside_classes(tmp_path):
    text = "(float[N,4] x) => (float[N,4] y, float[N,4] z) {{ y = Identity(x) z = {} }}"
    original = model(tmp_path, text.format("Identity(x)"), "a.onnx")
    noise = model(tmp_path, text.format("Mul(x, k)"), "b.onnx", k=np.float32(1.2))
    given = samples(*drawn(8, 2, 4))
    fidelity, _ = compared(tmp_path, original, noise, given, y="class", z="value")
    assert drop(fidelity, None) == 0
    assert worst_sqnr(fidelity) == pytest.approx(14, abs=0.1)
    assert not keeps(fidelity, None, **BOUND)
    assert keeps(fidelity, None, max_drop=0.01, min_sqnr_db=13)


# Labels


def test_integers_for_a_class_are_top1(tmp_path):
    feeds = drawn(64, 1, 4)
    labels = [feed["x"].argmax(-1) for feed in feeds]
    wrong = turned(tmp_path, "b.onnx", [1, 2, 3, 0])
    given = samples(*feeds, labels=labels)
    fidelity, accuracy = compared(tmp_path, passes_on(tmp_path), wrong, given, y="class")
    assert accuracy is not None
    lost = np.mean([feed["x"][0, 0] < 0 for feed in feeds])
    assert (accuracy.metric, accuracy.before, accuracy.samples) == ("top1", 1, 64)
    assert accuracy.drop == pytest.approx(lost)
    assert drop(fidelity, accuracy) == accuracy.drop
    assert accuracy.interval[0] < lost < accuracy.interval[1]


def test_the_drop_is_relative_to_the_metric_before(tmp_path):
    feeds = drawn(64, 1, 4)
    right = [feed["x"].argmax(-1) for feed in feeds]
    labels = [(label + index % 2) % 4 for index, label in enumerate(right)]
    wrong = turned(tmp_path, "b.onnx", [1, 2, 3, 0])
    given = samples(*feeds, labels=labels)
    _, accuracy = compared(tmp_path, passes_on(tmp_path), wrong, given, y="class")
    assert accuracy is not None
    assert accuracy.before == 0.5
    assert accuracy.drop == pytest.approx((0.5 - accuracy.after) / 0.5)


def test_integers_per_step_are_step_accuracy_and_some_count_for_nothing(tmp_path):
    feeds = drawn(8, 1, 5, 4)
    labels = [feed["x"].argmax(-1) for feed in feeds]
    labels = [np.where(np.arange(5) == 4, -100, label) for label in labels]
    path = passes_on(tmp_path, shape="N, T, 4")
    given = samples(*feeds, labels=labels)
    _, accuracy = compared(tmp_path, path, path, given, y="class")
    assert accuracy is not None
    assert (accuracy.metric, accuracy.before, accuracy.drop) == ("step_accuracy", 1, 0)
    assert 0 < accuracy.interval[1] < 0.5


def test_floats_of_an_outputs_shape_are_normalized_error(tmp_path):
    feeds = drawn(64, 1, 4)
    rng = np.random.default_rng(1)
    labels = [feed["x"] + 0.1 * rng.standard_normal((1, 4)) for feed in feeds]
    louder = model(
        tmp_path,
        "(float[N,4] x) => (float[N,4] y) { y = Mul(x, k) }",
        "b.onnx",
        k=np.float32(1.2),
    )
    given = samples(*feeds, labels=labels)
    _, accuracy = compared(tmp_path, passes_on(tmp_path), louder, given)
    assert accuracy is not None
    assert accuracy.metric == "normalized_error"
    assert accuracy.before == pytest.approx(0.1, rel=0.1)
    assert accuracy.after == pytest.approx(np.hypot(0.1, 0.2), rel=0.15)
    growth = accuracy.after - accuracy.before
    assert accuracy.drop == pytest.approx(growth / (1 - accuracy.before))
    assert accuracy.interval[0] < accuracy.drop < accuracy.interval[1]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.array([4]), "label 4 is no class"),
        (np.array([-1]), "label -1 is no class"),
        (np.array([0.0]), "float64"),
        (np.array([1, 2]), r"\[2\] per sample fit none"),
        (np.zeros((1, 5)), r"\[1, 5\]"),
    ],
)
def test_labels_that_fit_no_output_are_refused(tmp_path, label, words):
    given = samples(*drawn(4, 1, 4), labels=[label] * 4)
    with pytest.raises(LabelsMismatch, match=words):
        compared(tmp_path, passes_on(tmp_path), passes_on(tmp_path), given, y="class")


def test_labels_that_fit_two_outputs_are_refused(tmp_path):
    path = model(
        tmp_path,
        "(float[N,4] x) => (float[N,4] y, float[N,4] z) { y = Identity(x) z = Neg(x) }",
    )
    given = samples(*drawn(4, 1, 4), labels=[np.array([1])] * 4)
    with pytest.raises(LabelsMismatch, match=r"'y'.*'z'"):
        compared(tmp_path, path, path, given, y="class", z="class")


def test_a_result_of_nan_is_never_right(tmp_path):
    text = "(float[N,4] x) => (float[N,4] y) { z = Sub(x, x) y = Div(z, z) }"
    given = samples(*drawn(8, 1, 4), labels=[np.array([0])] * 8)
    path = passes_on(tmp_path)
    _, accuracy = compared(tmp_path, path, model(tmp_path, text, "b.onnx"), given, y="class")
    assert accuracy is not None
    assert accuracy.after == 0


# Large outputs


def test_outputs_that_are_too_large_to_keep_are_computed_again(tmp_path, monkeypatch):
    monkeypatch.setattr("worker.compression.fidelity.reference._LARGEST_CACHE", 10)
    path = passes_on(tmp_path)
    fidelity, _ = compared(tmp_path, path, path, samples(*drawn(8, 1, 4)))
    assert fidelity.outputs[0].identical
    assert sum(Path(file).stat().st_size for file in tmp_path.rglob("outputs.bin")) == 0
