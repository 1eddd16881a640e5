"""TorchScript becomes ONNX that answers as the module does, or is refused for a true reason."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn.utils import prune

from tests import torch_modules as modules
from worker.compression import (
    CompressionError,
    InvalidData,
    InvalidModel,
    InvalidRecipe,
    MissingInputs,
    StatefulModule,
)
from worker.ingest import Ingested, archive, ingest

X = {"x": {"shape": [1, 3, 8, 8], "dtype": "float32"}}
ROW = {"x": {"shape": [1, 4]}}


def convert(
    path: Path, inputs: dict[str, Any] | None = None, *, samples: Path | None = None
) -> Ingested:
    out = path.with_suffix(".onnx")
    return ingest(path, out, workdir=path.parent, inputs=inputs, samples_path=samples)


def refusal(
    kind: type[CompressionError],
    path: Path,
    inputs: dict[str, Any] | None = None,
    *,
    samples: Path | None = None,
) -> CompressionError:
    with pytest.raises(kind) as caught:
        convert(path, inputs, samples=samples)
    assert caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def run(path: Path, **feed: np.ndarray) -> list[np.ndarray]:
    outputs: list[np.ndarray] = ort.InferenceSession(path).run(None, feed)
    return outputs


def initializers(path: Path) -> dict[str, np.ndarray]:
    stored = onnx.load(path).graph.initializer
    return {item.name: numpy_helper.to_array(item) for item in stored}


def shapes(path: Path) -> dict[str, list[int | str]]:
    graph = onnx.load(path).graph
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in item.shape.dim]
        for value in [*graph.input, *graph.output]
        for item in [value.type.tensor_type]
    }


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("kind", ["scripted", "traced"])
def test_weights_and_names_are_the_modules_and_batchnorm_is_not_folded(
    tmp_path: Path, kind: str
) -> None:
    module = modules.ConvNet().eval()
    path = tmp_path / "net.pt"
    if kind == "scripted":
        modules.scripted(module, path)
    else:
        modules.traced(module, path, torch.zeros(2, 3, 8, 8))
    made = convert(path, X)
    found = initializers(made.path)
    for name, tensor in module.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(found[name], tensor.numpy(), err_msg=name)
    model = onnx.load(made.path)
    norm = next(node for node in model.graph.node if node.op_type == "BatchNormalization")
    assert norm.name == "/layer1/1/BatchNormalization"
    assert not any(item.name == "training_mode" and item.i for item in norm.attribute)
    assert model.opset_import[0].version >= 17


def test_any_batch_size_agrees_with_the_module(tmp_path: Path) -> None:
    module = modules.ConvNet().eval()
    made = convert(modules.scripted(module, tmp_path / "net.pt"), X)
    assert shapes(made.path) == {"x": ["batch", 3, 8, 8], "output_0": ["batch", 5]}
    x = random(7, 3, 8, 8)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run(made.path, x=x)[0], expected, rtol=1e-4, atol=1e-5)
    assert made.facts["largest_difference"] < 1e-4


def test_masks_of_pruning_are_applied_to_the_stored_weights(tmp_path: Path) -> None:
    module = modules.ConvNet().eval()
    layers = [(module.layer1[0], "weight"), (module.fc, "weight"), (module.head, "weight")]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=0.5)
    path = modules.traced(module, tmp_path / "net.pt", torch.zeros(1, 3, 8, 8))
    made = convert(path, X)
    found = initializers(made.path)
    for name, (layer, _) in zip(("layer1.0", "fc", "head"), layers, strict=True):
        masked = (layer.weight_orig * layer.weight_mask).detach().numpy()
        np.testing.assert_array_equal(found[f"{name}.weight"], masked)
    assert not any("orig" in name or "mask" in name for name in found)
    assert "76 of 153 weights are zero" in " ".join(made.notes)


def test_a_scripted_module_whose_hooks_were_removed_keeps_its_mask(tmp_path: Path) -> None:
    module = modules.ConvNet().eval()
    prune.l1_unstructured(module.fc, "weight", amount=0.5)
    module.fc._forward_pre_hooks.clear()
    made = convert(modules.scripted(module, tmp_path / "net.pt"), X)
    model = onnx.load(made.path)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    assert gemm.input[1] == "fc.weight"


def test_lstm_weights_get_their_names_back(tmp_path: Path) -> None:
    module = modules.Recurrent().eval()
    made = convert(modules.scripted(module, tmp_path / "net.pt"), {"x": {"shape": [1, 6, 4]}})
    found = initializers(made.path)
    assert found["lstm.weight_ih_l0"].shape == (2, 12, 4)
    stored = np.sort(found["lstm.weight_ih_l0"].ravel())
    own = [module.lstm.weight_ih_l0, module.lstm.weight_ih_l0_reverse]
    np.testing.assert_array_equal(stored, np.sort(torch.cat(own).detach().numpy().ravel()))


def test_equal_layers_stay_two_and_multihead_attention_converts(tmp_path: Path) -> None:
    module = modules.Attention().eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        path = modules.traced(module, tmp_path / "net.pt", torch.zeros(1, 5, 8))
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    found = initializers(convert(path, {"x": {"shape": [1, 5, 8]}}).path)
    named = [name for name in module.state_dict() if name in found]
    assert named == list(module.state_dict())
    assert [name for name in found if name in named] == named


def test_a_weight_that_two_layers_share_stays_one(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    module[2].weight = module[0].weight
    path = modules.traced(module.eval(), tmp_path / "net.pt", torch.zeros(1, 4))
    found = initializers(convert(path, {"input": {"shape": [1, 4]}}).path)
    assert [name for name in found if name.endswith("weight")] == ["0.weight"]


def test_normalised_weights_arrive_as_one_weight(tmp_path: Path) -> None:
    module = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 3, 3)).eval()
    path = modules.traced(module, tmp_path / "net.pt", torch.zeros(1, 2, 9))
    found = initializers(convert(path, {"input": {"shape": [1, 2, 9]}}).path)
    np.testing.assert_allclose(found["weight"], module.weight.detach().numpy(), rtol=1e-5)


def test_a_frozen_module_converts(tmp_path: Path) -> None:
    with modules.quiet():
        frozen = torch.jit.freeze(torch.jit.script(modules.ConvNet().eval()))
        frozen.save(str(tmp_path / "net.pt"))
    made = convert(tmp_path / "net.pt", X)
    assert shapes(made.path)["output_0"] == ["batch", 5]


def test_nested_outputs_are_flattened_in_order(tmp_path: Path) -> None:
    module = modules.Text().eval()
    inputs = {"ids": {"shape": [1, 6], "dtype": "int64"}, "mask": {"shape": [1, 6]}}
    made = convert(modules.scripted(module, tmp_path / "net.pt"), inputs)
    ids = np.array([[1, 2, 3, 4, 5, 6], [9, 8, 7, 0, 0, 0]])
    mask = (ids > 0).astype(np.float32)
    first, named, listed = module(torch.from_numpy(ids), torch.from_numpy(mask))
    expected = [first, named["tokens"], named["most"], listed[0]]
    for got, wanted in zip(run(made.path, ids=ids, mask=mask), expected, strict=True):
        np.testing.assert_allclose(got, wanted.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_named_tuples_are_flattened_and_none_is_left_out(tmp_path: Path) -> None:
    made = convert(modules.scripted(modules.Optional(), tmp_path / "net.pt"), ROW)
    x = random(2, 4)
    first, second = run(made.path, x=x)
    np.testing.assert_allclose(first, x * 2)
    np.testing.assert_allclose(second, x + 1)


@pytest.mark.parametrize("sign", [1, -1])
def test_both_sides_of_a_branch_on_the_values_are_kept(tmp_path: Path, sign: int) -> None:
    module = modules.Branch().eval()
    made = convert(modules.scripted(module, tmp_path / "net.pt"), ROW)
    x = sign * np.abs(random(3, 4))
    expected = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(run(made.path, x=x)[0], expected, rtol=1e-4, atol=1e-6)


def test_plain_arguments_are_fixed_at_what_inputs_says(tmp_path: Path) -> None:
    path = modules.scripted(modules.Plain(), tmp_path / "net.pt")
    inputs = {**ROW, "rate": {"value": 16000}, "sizes": {"value": [3, 0.5]}}
    made = convert(path, inputs)
    x = random(2, 4)
    np.testing.assert_allclose(run(made.path, x=x)[0], 2 * (x * 3 + 0.5), rtol=1e-6)
    assert "rate is fixed at 16000" in made.notes
    hard = convert(path, {**inputs, "mode": {"value": "hard"}, "bias": {"shape": [1, 4]}})
    assert list(shapes(hard.path)) == ["x", "bias", "output_0"]


def test_what_cannot_be_known_is_asked_for_with_the_json_to_send(tmp_path: Path) -> None:
    path = modules.scripted(modules.Plain(), tmp_path / "net.pt")
    error = refusal(MissingInputs, path)
    assert '{"x": {"shape": [' in error.message
    assert '"rate": {"value": 1}' in error.message
    assert '"sizes": {"value": [1.0]}' in error.message
    assert "mode" not in error.message


def test_the_example_is_what_the_module_was_traced_with(tmp_path: Path) -> None:
    ids, mask = torch.zeros(2, 6, dtype=torch.int64), torch.zeros(2, 6)
    path = modules.traced(modules.Text().eval(), tmp_path / "net.pt", ids, mask)
    error = refusal(MissingInputs, path)
    assert '{"ids": {"shape": [2, 6], "dtype": "int64"}, "mask": {"shape"' in error.message
    assert '[2, 6], "dtype": "float32"}}' in error.message


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({"y": {"shape": [1, 4]}}, "forward has no argument 'y'; its arguments are x, rate"),
        ({"x": {"shape": [1, 4], "size": 3}}, "x.size"),
        ({"x": {"shape": [0, 4]}}, "x.shape"),
        ({"x": {"shape": [1 << 40, 1 << 40]}}, "x.shape"),
        ({"x": {"shape": [1, 4], "dtype": "complex64"}}, "x.dtype"),
        ({"x": {"value": 3}}, "x is a tensor"),
        ({**ROW, "rate": {"value": "fast"}}, "rate is a int; 'fast' is not"),
        ({**ROW, "rate": {"shape": [1]}}, "rate is a int"),
        ({"x": [1, 4]}, "inputs: x"),
    ],
)
def test_wrong_inputs_are_refused_by_name(
    tmp_path: Path, inputs: dict[str, Any], named: str
) -> None:
    path = modules.scripted(modules.Plain(), tmp_path / "net.pt")
    error = refusal(InvalidRecipe, path, inputs)
    assert error.code == "invalid_inputs"
    assert named in error.message


@pytest.mark.parametrize("module", [modules.Running(), modules.Counting()])
def test_hidden_state_is_refused(tmp_path: Path, module: nn.Module) -> None:
    error = refusal(StatefulModule, modules.scripted(module, tmp_path / "net.pt"), ROW)
    assert error.code == "stateful_module"
    assert "output_0 differs by" in error.message


def test_random_answers_are_told_from_state(tmp_path: Path) -> None:
    path = modules.scripted(modules.Noisy(), tmp_path / "net.pt")
    assert refusal(InvalidModel, path, ROW).code == "nondeterministic_module"


def test_a_trace_in_training_mode_is_refused(tmp_path: Path) -> None:
    module = modules.ConvNet().train()
    path = modules.traced(module, tmp_path / "net.pt", torch.zeros(2, 3, 8, 8))
    error = refusal(InvalidModel, path, X)
    assert error.code == "training_mode"
    assert "eval()" in str(error.hint)


def test_a_module_scripted_in_training_mode_is_put_into_evaluation_mode(tmp_path: Path) -> None:
    module = modules.ConvNet().train()
    with modules.quiet():
        torch.jit.script(module).save(str(tmp_path / "net.pt"))
    made = convert(tmp_path / "net.pt", X)
    x = random(2, 3, 8, 8)
    expected = module.eval()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(run(made.path, x=x)[0], expected, rtol=1e-4, atol=1e-5)


def test_a_module_for_one_batch_size_gets_it_with_a_note(tmp_path: Path) -> None:
    path = modules.traced(modules.OneAtATime().eval(), tmp_path / "net.pt", torch.zeros(1, 8))
    made = convert(path, {"x": {"shape": [1, 8]}})
    assert shapes(made.path)["x"] == [1, 8]
    assert any(note.startswith("the batch size is fixed at 1") for note in made.notes)


@pytest.mark.parametrize(
    ("module", "inputs", "code", "named"),
    [
        (modules.Unconvertible(), ROW, "conversion_failed", "operator aten::special_i0e"),
        (modules.TakesTuple(), None, "unsupported_input", "pair: Tuple[Tensor, Tensor]"),
        (modules.ReturnsNumber(), ROW, "unsupported_output", "returns a int"),
        (nn.Conv1d(1, 2, 3).double(), {"input": {"shape": [1, 1, 9], "dtype": "float64"}},
         "conversion_failed", "Conv"),
        (nn.Linear(4, 4).bfloat16(), {"input": {"shape": [1, 4]}}, "unsupported_dtype",
         "bfloat16"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused_with_the_culprit(
    tmp_path: Path, module: nn.Module, inputs: dict[str, Any] | None, code: str, named: str
) -> None:
    error = refusal(InvalidModel, modules.scripted(module, tmp_path / "net.pt"), inputs)
    assert error.code == code
    assert named in error.message


def test_a_quantized_module_is_refused_as_such(tmp_path: Path) -> None:
    with modules.quiet():
        module = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)))
    path = modules.scripted(module, tmp_path / "net.pt")
    error = refusal(InvalidModel, path, {"input": {"shape": [1, 4]}})
    assert error.code == "quantized_module"
    assert "quantized::linear_dynamic" in error.message


def test_the_batch_of_a_recurrent_state_is_its_second_axis(tmp_path: Path) -> None:
    module = modules.WithState().eval()
    inputs = {"x": {"shape": [1, 7, 4]}, "h": {"shape": [2, 1, 5]}}
    made = convert(modules.scripted(module, tmp_path / "net.pt"), inputs)
    assert shapes(made.path)["h"] == [2, "batch", 5]
    assert shapes(made.path)["output_1"] == [2, "batch", 5]


def test_constants_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    path = modules.scripted(modules.Constants(), tmp_path / "net.pt")
    made = convert(path, {"x": {"shape": [1, 4, 6, 6]}})
    assert shapes(made.path)["output_0"] == ["batch", 4]


def test_a_size_that_the_values_decide_stays_free(tmp_path: Path) -> None:
    made = convert(modules.scripted(modules.Chosen(), tmp_path / "net.pt"), ROW)
    assert shapes(made.path)["output_0"] == ["output_0_axis_0"]


def test_values_that_forward_refuses_are_told_with_its_own_words(tmp_path: Path) -> None:
    path = modules.scripted(modules.Strict(), tmp_path / "net.pt")
    np.savez(tmp_path / "d.npz", x=np.array([[0.5], [2.0]], np.float32))
    error = refusal(InvalidData, path, samples=tmp_path / "d.npz")
    assert error.code == "forward_failed"
    assert "values must be at most 1" in error.message


def test_damage_is_found_before_torch_meets_it(tmp_path: Path) -> None:
    path = modules.scripted(modules.ConvNet(), tmp_path / "net.pt")
    whole = path.read_bytes()
    for entry in list(archive.entries(path)):
        data = bytearray(whole)
        data[entry.start + entry.packed // 2] ^= 0xFF
        path.write_bytes(data)
        assert refusal(InvalidModel, path, X).code == "damaged_archive"


def test_half_precision_weights_convert(tmp_path: Path) -> None:
    path = modules.scripted(nn.Linear(4, 4).half(), tmp_path / "net.pt")
    made = convert(path, {"input": {"shape": [1, 4], "dtype": "float16"}})
    assert initializers(made.path)["weight"].dtype == np.float16


def test_a_shape_that_forward_refuses_is_named(tmp_path: Path) -> None:
    path = modules.scripted(modules.ConvNet(), tmp_path / "net.pt")
    error = refusal(InvalidData, path, {"x": {"shape": [1, 5, 8, 8]}})
    assert error.code == "forward_failed"
    assert "x: float32[1, 5, 8, 8]" in error.message


def test_nothing_is_written_outside_of_the_folder_and_nothing_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "cwd").mkdir()
    path = modules.scripted(modules.ConvNet(), tmp_path / "job" / "net.pt")
    broken = modules.scripted(modules.Unconvertible(), tmp_path / "job" / "broken.pt")
    monkeypatch.chdir(tmp_path / "cwd")
    capfd.readouterr()
    convert(path, X)
    refusal(InvalidModel, broken, ROW)
    assert list((tmp_path / "cwd").iterdir()) == []
    assert {item.name for item in tmp_path.iterdir()} == {"job", "cwd"}
    assert capfd.readouterr() == ("", "")
