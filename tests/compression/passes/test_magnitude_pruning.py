import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn.utils import prune

from tests.models import branches, build, context, convnet, images, normal, opened, run
from worker.compression import graph
from worker.compression.errors import CompressionWarning, InvalidRecipe
from worker.compression.passes import GraphCleaning, MagnitudePruning
from worker.compression.passes import magnitude_pruning as module


class Net(nn.Module):
    """BatchNorm, a depthwise layer, a weight used twice; defined in another order than used."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(16, 10)
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.twice = nn.Conv2d(8, 8, 1)
        self.up = nn.ConvTranspose2d(8, 16, 2, stride=2)
        self.linear = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.bn(self.conv(x)).relu()
        x = self.twice(self.twice(self.depthwise(x).relu()))
        return self.head(self.linear(self.up(x).mean((2, 3))))  # type: ignore[no-any-return]


def net(grid: int | None) -> Net:
    """Seeded; with a grid, so coarse that most scores are equal to many others."""
    torch.manual_seed(0)
    made = Net()
    with torch.no_grad():
        made.bn.running_var.uniform_(0.1, 9)  # type: ignore[union-attr]
        made.bn.weight.uniform_(0.1, 9)
        for parameter in made.parameters():
            if grid is not None:
                parameter.copy_((parameter * grid).round() / grid)
    return made


def exported(module: nn.Module, folder: Path) -> ir.Model:
    """As ingest does it: BatchNorm is not fused, the mode of the module is kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the legacy exporter is deprecated, and says so
        torch.onnx.export(
            module,
            (torch.zeros(1, 3, 8, 8),),
            str(folder / "net.onnx"),
            dynamo=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return graph.load(folder / "net.onnx")


def zeros(model: ir.Model) -> dict[str, np.ndarray]:
    return {weight.name: weight.array() == 0 for weight in graph.weights(model)}


def pruned(model: ir.Model | onnx.ModelProto, folder: Path, **settings: Any) -> ir.Model:
    given = opened(model) if isinstance(model, onnx.ModelProto) else model
    return MagnitudePruning(**settings).apply(given, context(folder, images(1)))


@pytest.mark.filterwarnings("ignore::worker.compression.errors.CompressionWarning")
@pytest.mark.parametrize("grid", [None, 32, 8])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("amount", [0.2, 0.777])
def test_masks_equal_those_of_torch(
    tmp_path: Path, grid: int | None, scope: str, amount: float
) -> None:
    original = net(grid)
    model = pruned(
        exported(copy.deepcopy(original), tmp_path), tmp_path, amount=amount, scope=scope
    )

    layers = {
        name: layer
        for name, layer in original.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    }
    if scope == "global":
        pairs = [(layer, "weight") for layer in layers.values()]
        prune.global_unstructured(pairs, pruning_method=prune.L1Unstructured, amount=amount)
    else:
        for layer in layers.values():
            prune.l1_unstructured(layer, "weight", amount)
    expected = {f"{name}.weight": (layer.weight == 0).numpy() for name, layer in layers.items()}

    found = zeros(model)
    assert set(found) == set(expected)
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name], mask, err_msg=name)


def test_weights_are_scored_before_batch_norm_is_folded(tmp_path: Path) -> None:
    ctx = context(tmp_path, images(2))
    before = zeros(pruned(convnet(), tmp_path, amount=0.5))
    cleaned = GraphCleaning().apply(pruned(convnet(), tmp_path, amount=0.5), ctx)
    for name, mask in before.items():
        np.testing.assert_array_equal(zeros(cleaned)[name], mask)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_number_of_zeros_is_exact_in_every_type(tmp_path: Path, dtype: type) -> None:
    kind = {np.float16: "float16", np.float32: "float", np.float64: "double"}[dtype]
    text = f"g ({kind}[n,64] x) => ({kind}[n,33] y) {{ y = MatMul (x, w) }}"
    model = pruned(build(text, {"w": normal(64, 33).astype(dtype)}), tmp_path, amount=0.3)
    (weight,) = graph.weights(model)
    assert weight.array().dtype == dtype
    assert np.count_nonzero(weight.array() == 0) == round(0.3 * 64 * 33)


def test_the_smallest_go_and_the_others_do_not_change(tmp_path: Path) -> None:
    text = "g (float[n,64] x) => (float[n,32] y) { y = MatMul (x, w) }"
    array = normal(64, 32)
    (weight,) = graph.weights(pruned(build(text, {"w": array}), tmp_path, amount=0.4))
    gone = weight.array() == 0
    assert np.abs(array[gone]).max() < np.abs(array[~gone]).min()
    np.testing.assert_array_equal(weight.array()[~gone], array[~gone])


def test_beyond_the_limit_of_torch_equal_scores_go_by_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TOPK_LIMIT", 10)
    text = "g (float[n,8] x) => (float[n,8] y) { y = MatMul (x, w) }"
    model = pruned(build(text, {"w": np.ones((8, 8), np.float32)}), tmp_path, amount=0.25)
    gone = zeros(model)["w"].ravel()
    np.testing.assert_array_equal(gone, np.arange(64) < 16)


def test_a_layer_scope_prunes_every_layer_alike(tmp_path: Path) -> None:
    found = zeros(pruned(convnet(), tmp_path, amount=0.25, scope="layer"))
    assert {name: int(mask.sum()) for name, mask in found.items()} == {
        "conv.weight": 54,
        "depthwise.weight": 18,
        "fc.weight": 20,
    }


def test_l2_scores_single_weights_in_the_order_of_l1(tmp_path: Path) -> None:
    first = zeros(pruned(convnet(), tmp_path, amount=0.3, norm="l1"))
    second = zeros(pruned(convnet(), tmp_path, amount=0.3, norm="l2"))
    for name, mask in first.items():
        np.testing.assert_array_equal(second[name], mask)


def test_two_of_four_zeros_half_of_every_group_along_the_input_axis(tmp_path: Path) -> None:
    text = """
    g (float[n,8,4,4] x) => (float[n,3] y) {
        c = Conv (x, conv)
        p = GlobalAveragePool (c)
        f = Flatten (p)
        a = Gemm <transB = 1> (f, gemm)
        y = MatMul (a, matmul)
    }
    """
    arrays = {"conv": normal(16, 8, 3, 3), "gemm": normal(4, 16), "matmul": normal(4, 3)}
    found = zeros(pruned(build(text, arrays), tmp_path, pattern="2:4"))
    along = {"conv": 1, "gemm": 1, "matmul": 0}
    for name, axis in along.items():
        groups = np.moveaxis(found[name], axis, -1).reshape(-1, 4)
        assert (groups.sum(axis=1) == 2).all(), name
        values = np.moveaxis(np.abs(arrays[name]), axis, -1).reshape(-1, 4)
        assert (
            np.where(groups, values, 0).max(axis=1) <= np.where(groups, 9, values).min(axis=1)
        ).all()


def test_two_of_four_leaves_layers_out_that_do_not_fit_and_says_so(tmp_path: Path) -> None:
    model = pruned(convnet(), tmp_path, pattern="2:4")
    found = zeros(model)
    assert not found["conv.weight"].any()  # three input channels
    assert found["fc.weight"].sum() == 40
    assert "not a multiple of 4" in graph.notes(model)["conv"]


def test_weights_in_bodies_constants_and_behind_transpose_are_pruned(tmp_path: Path) -> None:
    found = zeros(pruned(branches(), tmp_path, amount=0.5))
    assert sum(int(mask.sum()) for mask in found.values()) == 16

    text = """
    g (float[n,2] x) => (float[n,2] y) {
        k = Constant <value = float[2,2] {1, 2, 3, 4}> ()
        t = Transpose (k)
        y = MatMul (x, t)
    }
    """
    model = pruned(build(text, {}), tmp_path, amount=0.5)
    (result,) = run(model, {"x": np.eye(2, dtype=np.float32)}, tmp_path)
    np.testing.assert_array_equal(result, [[0, 3], [0, 4]])


def test_recurrent_weights_are_pruned_and_biases_are_not(tmp_path: Path) -> None:
    text = """
    g (float[t,n,4] x) => (float[t,d,n,3] y) { y = LSTM <hidden_size = 3> (x, w, r, b) }
    """
    weights = {"w": normal(1, 12, 4), "r": normal(1, 12, 3), "b": normal(1, 24, scale=1e-6)}
    model = pruned(build(text, weights), tmp_path, amount=0.5)
    assert sum(int(mask.sum()) for mask in zeros(model).values()) == 42
    bias = model.graph.initializers["b"].const_value
    assert bias is not None
    assert np.count_nonzero(bias.numpy()) == 24


def test_include_and_exclude_limit_what_is_pruned(tmp_path: Path) -> None:
    found = zeros(pruned(convnet(), tmp_path, amount=0.5, include=["*.weight"], exclude=["fc"]))
    assert {name: bool(mask.any()) for name, mask in found.items()} == {
        "conv.weight": True,
        "depthwise.weight": True,
        "fc.weight": False,
    }


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRecipe, match="layer9") as caught:
        pruned(convnet(), tmp_path, amount=0.5, include=["layer9"])
    assert "conv.weight" in caught.value.message


def test_zeros_of_the_upload_are_reported_and_count(tmp_path: Path) -> None:
    text = "g (float[n,8] x) => (float[n,8] y) { y = MatMul (x, w) }"
    array = normal(8, 8)
    array[:2] = 0
    with pytest.warns(CompressionWarning, match=r"25\.0%") as caught:
        model = pruned(build(text, {"w": array}), tmp_path, amount=0.5)
    assert caught[0].message.code == "already_sparse"  # type: ignore[union-attr]
    mask = zeros(model)["w"]
    assert mask[:2].all()
    assert mask.sum() == 32


def test_quantized_weights_are_left_alone(tmp_path: Path) -> None:
    text = """
    g (float[n,4] x) => (float[n,4] y) {
        d = DequantizeLinear (q, s)
        a = MatMul (x, d)
        y = MatMul (a, w)
    }
    """
    weights = {
        "q": np.arange(16, dtype=np.int8).reshape(4, 4),
        "s": np.float32(0.1).reshape(()),
        "w": normal(4, 4),
    }
    with pytest.warns(CompressionWarning) as caught:
        model = pruned(build(text, weights), tmp_path, amount=0.5)
    assert caught[0].message.code == "quantized_weights_skipped"  # type: ignore[union-attr]
    assert set(zeros(model)) == {"w"}


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("g (float[n,4] x) => (float[n,4] y) { y = Relu (x) }", {}),
        ("g (float[n,4] x) => (float[n,4] y) { y = Add (x, b) }", {"b": normal(4)}),
    ],
)
def test_a_model_without_weights_is_refused(
    tmp_path: Path, text: str, weights: dict[str, np.ndarray]
) -> None:
    with pytest.raises(InvalidRecipe) as caught:
        pruned(build(text, weights), tmp_path, amount=0.5)
    assert caught.value.code == "nothing_to_prune"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"amount": 0.5, "pattern": "2:4"},
        {"amount": 0.0},
        {"amount": 1.0},
        {"amount": float("nan")},
        {"amount": -0.1},
        {"pattern": "4:8"},
        {"amount": 0.5, "scope": "model"},
        {"amount": 0.5, "norm": "l3"},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MagnitudePruning(**settings)
