from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.models import build, context, normal, opened, run, written
from worker.compression import compress, graph
from worker.compression.calibration import CalibrationSet
from worker.compression.passes import DynamicQuantization, StaticQuantization
from worker.compression.portability import Products, judge_products
from worker.compression.portability.pairs import count_saturated, safe


def brute(activations: np.ndarray, weight: np.ndarray) -> int:
    """Pair by pair, as VPMADDUBSW adds them."""
    padded = np.pad(weight.astype(int), [(0, len(weight) % 2), (0, 0)])
    rows = np.pad(activations.astype(int), [(0, 0), (0, len(weight) % 2)])
    products = rows[:, :, None] * padded[None]
    sums = products[:, ::2] + products[:, 1::2]
    return int(((sums > 32767) | (sums < -32768)).any(axis=1).sum())


def test_pairs_are_counted_as_16_bits_would_saturate_them() -> None:
    random = np.random.default_rng(0)
    for inputs in (2, 7, 64):
        weight = random.integers(-127, 128, (inputs, 9)).astype(np.int8)
        rows = random.integers(0, 256, (33, inputs)).astype(np.uint8)
        counted = count_saturated(weight, rows.T.__getitem__, rows.max(axis=0).astype(np.int32))
        assert counted == brute(rows, weight) > 0
        assert not safe(weight)
        assert safe(np.clip(weight, -64, 64))


def quantized(text: str, held: dict[str, np.ndarray], folder: Path, **settings: Any) -> Path:
    path = folder / "int8.onnx"
    feeds = [{"x": feed} for feed in samples()]
    pass_ = StaticQuantization(**settings)
    graph.save(pass_.apply(opened(build(text, held)), context(folder, feeds)), path)
    return path


def samples() -> list[np.ndarray]:
    return [np.abs(normal(2, 5, 9, 9, seed=seed)) for seed in range(4)]


CONV = """
g (float[n,5,9,9] x) => (float[n,o,h,w] y) {
    [conv] y = Conv <ATTRIBUTES> (x, w)
}
"""


@pytest.mark.parametrize("format_", ["qdq", "qoperator"])
@pytest.mark.parametrize(
    "attributes",
    [
        "pads = [1, 0, 2, 1]",
        "strides = [2, 3], dilations = [2, 1]",
        'auto_pad = "SAME_LOWER", strides = [2, 2]',
    ],
)
def test_a_convolution_is_simulated_window_by_window(
    attributes: str, format_: str, tmp_path: Path
) -> None:
    weight = np.sign(normal(6, 5, 3, 3)) * 0.9
    weight[:, 0, 0, 0] = 1
    path = quantized(
        CONV.replace("ATTRIBUTES", attributes), {"w": weight}, tmp_path, format=format_
    )
    found = judge_products(path, CalibrationSet([{"x": x} for x in samples()], "calibration"))
    assert found == Products(1, 4, found.simulated, [])
    (layer,) = found.simulated
    expected = [by_windows(path, x) for x in samples()]
    assert layer.saturated == sum(count for count, _ in expected) > 0
    assert layer.outputs == sum(outputs for _, outputs in expected)


def by_windows(path: Path, x: np.ndarray) -> tuple[int, int]:
    """Saturated outputs of the first convolution, from columns that ONNX Runtime unfolds."""
    model = graph.load(path)
    conv = next(node for node in model.graph if node.op_type in ("Conv", "QLinearConv"))
    held = {v.name: v.const_value.numpy() for v in model.graph.initializers.values()}  # type: ignore[union-attr]
    codes = next(a for a in held.values() if a.dtype == np.int8 and a.ndim == 4)
    quantizing = next(node for node in model.graph if node.op_type == "QuantizeLinear")
    scale, zero = (held[v.name] for v in quantizing.inputs[1:] if v is not None)
    rounded = np.clip(np.rint(x / scale) + zero, 0, 255).astype(np.float32) - zero
    kernel = np.zeros((45, 5, 3, 3), np.float32)  # one window position and channel each
    for place in range(45):
        position, channel = divmod(place, 5)
        kernel[place, channel, position // 3, position % 3] = 1
    attributes = {
        name: value.value for name, value in conv.attributes.items() if name != "kernel_shape"
    }
    text = "g (float[n,5,9,9] x) => (float[n,45,h,w] y) { [conv] y = Conv (x, w) }"
    proto = build(text, {"w": kernel})
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], **attributes)
    proto.graph.node[0].CopyFrom(node)
    (unfolded,) = run(proto, {"x": rounded.astype(np.float32)}, path.parent)
    rows = (np.moveaxis(unfolded, 1, -1).reshape(-1, 45) + zero).astype(np.uint8)
    weight = codes.transpose(2, 3, 1, 0).reshape(45, -1)
    return brute(rows, weight), rows.shape[0] * weight.shape[1]


def test_seven_bit_weights_are_safe_whatever_the_samples(tmp_path: Path) -> None:
    text = CONV.replace("ATTRIBUTES", "pads = [1, 1, 1, 1]")
    weight = np.ones((6, 5, 3, 3), np.float32)
    path = quantized(text, {"w": weight}, tmp_path, weights="int7")
    assert judge_products(path, CalibrationSet([], "calibration")) == Products(1, 0, [], [])


def test_depthwise_convolutions_are_exact_on_every_cpu(tmp_path: Path) -> None:
    weight = np.ones((5, 1, 3, 3), np.float32)
    path = quantized(CONV.replace("ATTRIBUTES", "group = 5"), {"w": weight}, tmp_path)
    assert judge_products(path, CalibrationSet([], "calibration")) == Products()


GEMM = "g (float[n,24] x) => (float[n,24] y) { [fc] y = Gemm <transB = 1> (x, w) }"


@pytest.mark.parametrize("pass_", [StaticQuantization(), DynamicQuantization()])
def test_a_product_is_simulated_on_what_it_reads(
    pass_: StaticQuantization | DynamicQuantization, tmp_path: Path
) -> None:
    weight = np.where(normal(24, 24) > 0, 1.0, 0.1).astype(np.float32)
    feeds = [{"x": np.abs(normal(8, 24, seed=seed))} for seed in range(4)]
    path = tmp_path / "int8.onnx"
    result = pass_.apply(opened(build(GEMM, {"w": weight})), context(tmp_path, feeds))
    graph.save(result, path)
    quiet = [{"x": np.full((8, 24), 0.1, np.float32)}]
    (layer,) = judge_products(path, CalibrationSet(feeds, "calibration")).simulated
    assert 0 < layer.saturated < layer.outputs == 4 * 8 * 24
    if isinstance(pass_, StaticQuantization):  # dynamic scales make every input loud
        (layer,) = judge_products(path, CalibrationSet(quiet, "calibration")).simulated
        assert layer.saturated == 0


def test_the_verdict_is_in_the_sentence_the_report_and_the_page(tmp_path: Path) -> None:
    weight = np.where(normal(24, 24) > 0, 1.0, 0.1).astype(np.float32)
    path = written(build(GEMM, {"w": weight}), tmp_path / "float.onnx")
    np.savez(tmp_path / "feeds.npz", x=np.abs(normal(32, 24)))
    for bits, same in (("int8", False), ("int7", True)):
        recipe = {"passes": [{"method": "static_quantization", "weights": bits}]}
        report = compress(
            path,
            recipe,
            out=tmp_path / bits,
            calibration=tmp_path / "feeds.npz",
            quiet=lambda: nullcontext(False),
        )
        assert report.portability is not None
        assert report.portability.same is same
        assert report.portability.sentence in report.verdict.sentence
        page = (tmp_path / bits / "report.html").read_text()
        assert "On CPUs without VNNI" in page
        assert ("outputs that saturate" in page) is not same


def test_what_no_run_can_show_is_said_to_be_unseen(tmp_path: Path) -> None:
    text = """
    g (float[n,24] x) => (float[n,24] y) {
        s = ReduceSum <keepdims = 0> (x)
        c = Greater (s, zero)
        y = If (c) <
            then_branch = then () => (float[n,24] t) { [inner] t = MatMul (x, w) },
            else_branch = otherwise () => (float[n,24] e) { e = Identity (x) }
        >
    }
    """
    held = {"w": np.ones((24, 24), np.float32), "zero": np.zeros((), np.float32)}
    path = tmp_path / "int8.onnx"
    made = DynamicQuantization().apply(opened(build(text, held)), context(tmp_path, []))
    graph.save(made, path)
    given = CalibrationSet([{"x": normal(2, 24)}], "calibration")
    assert judge_products(path, given) == Products(1, 0, [], ["inner"])


@pytest.mark.parametrize("format_", ["qdq", "qoperator"])
def test_a_weight_that_is_a_vector_is_judged_as_a_column(format_: str, tmp_path: Path) -> None:
    text = "g (float[n,5,9,9] x) => (float[n,5,9] y) { y = MatMul (x, w) }"
    for weight, simulated in ((np.ones(9, np.float32), 1), (np.eye(9, dtype=np.float32)[0], 0)):
        path = quantized(text, {"w": weight}, tmp_path, format=format_)
        found = judge_products(path, CalibrationSet([{"x": samples()[0]}], "calibration"))
        assert (found.layers, len(found.simulated), found.unseen) == (1, simulated, [])
