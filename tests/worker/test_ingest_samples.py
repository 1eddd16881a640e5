"""Shapes, types and free axes of a TorchScript module are taken from the data."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from tests import torch_modules as modules
from worker.compression import InvalidData, MissingInputs
from worker.ingest import Ingested, ingest


class Tokens(nn.Module):
    """Any number of tokens; both inputs have as many."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(50, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.out(self.table(ids) * mask.unsqueeze(-1))


class Rate(nn.Module):
    def forward(self, x: Tensor, rate: int) -> Tensor:
        return x * rate


class Shift(nn.Module):
    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return x + offset


def convert(path: Path, data: Path, inputs: dict[str, Any] | None = None) -> Ingested:
    out = path.with_suffix(".onnx")
    return ingest(path, out, workdir=path.parent, inputs=inputs, samples_path=data)


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def inputs_of(path: Path) -> dict[str, tuple[int, list[int | str]]]:
    return {
        value.name: (
            item.elem_type,
            [axis.dim_param or axis.dim_value for axis in item.shape.dim],
        )
        for value in onnx.load(path).graph.input
        for item in [value.type.tensor_type]
    }


FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64


def test_a_row_of_the_array_is_a_sample_and_labels_are_no_input(
    tmp_path: Path,
) -> None:
    path = modules.scripted(modules.ConvNet(), tmp_path / "net.pt")
    x = np.random.default_rng(0).random((20, 3, 8, 8), dtype=np.float32)
    made = convert(path, save(tmp_path / "d.npz", x=x, labels=np.arange(20)))
    assert inputs_of(made.path) == {"x": (FLOAT, ["batch", 3, 8, 8])}
    assert "real samples" in made.notes[0]


def test_an_array_of_whole_samples_has_one_axis_more(tmp_path: Path) -> None:
    path = modules.scripted(modules.ConvNet(), tmp_path / "net.pt")
    data = save(tmp_path / "d.npz", x=np.zeros((20, 1, 3, 8, 8), np.float32))
    assert inputs_of(convert(path, data).path) == {"x": (FLOAT, ["batch", 3, 8, 8])}


def test_a_compressed_archive_and_an_array_in_column_order_are_read(tmp_path: Path) -> None:
    path = modules.scripted(modules.ConvNet(), tmp_path / "net.pt")
    x = np.asfortranarray(np.random.default_rng(0).random((5, 3, 8, 8), dtype=np.float32))
    np.savez_compressed(tmp_path / "d.npz", x=x)
    assert inputs_of(convert(path, tmp_path / "d.npz").path)["x"][1] == ["batch", 3, 8, 8]


def test_a_single_array_is_the_first_input(tmp_path: Path) -> None:
    path = modules.scripted(modules.ConvNet(), tmp_path / "net.pt")
    np.save(tmp_path / "d.npy", np.zeros((4, 3, 8, 8), np.float32))
    assert list(inputs_of(convert(path, tmp_path / "d.npy").path)) == ["x"]


@pytest.mark.parametrize("given", [np.float64, np.uint8])
def test_data_of_another_type_gives_the_modules_type(tmp_path: Path, given: type) -> None:
    path = modules.scripted(modules.ConvNet(), tmp_path / "net.pt")
    inputs = {"x": {"dtype": "float32"}} if given is np.uint8 else None
    data = save(tmp_path / "d.npz", x=np.ones((4, 3, 8, 8), given))
    assert inputs_of(convert(path, data, inputs).path)["x"][0] == FLOAT


def test_axes_that_vary_are_free_and_equal_ones_share_a_name(
    tmp_path: Path,
) -> None:
    module = Tokens().eval()
    path = modules.scripted(module, tmp_path / "net.pt")
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for index, length in enumerate([5, 9, 5, 12]):
        arrays[f"{index}|ids"] = rng.integers(0, 50, (1, length)).astype(np.int32)
        arrays[f"{index}|mask"] = np.ones((1, length), np.float32)
    made = convert(path, save(tmp_path / "d.npz", **arrays))
    free = ["batch", "ids_axis_1"]
    assert {name: shape for name, (_, shape) in inputs_of(made.path).items()} == {
        "ids": free, "mask": free,
    }  # fmt: skip
    ids, mask = rng.integers(0, 50, (3, 31)), np.ones((3, 31), np.float32)
    kind = inputs_of(made.path)["ids"][0]
    fed = ids.astype(np.int64 if kind == INT64 else np.int32)
    (got,) = ort.InferenceSession(made.path).run(None, {"ids": fed, "mask": mask})
    expected = module(torch.from_numpy(ids), torch.from_numpy(mask)).detach().numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_a_plain_argument_is_taken_from_the_data_where_it_is_one_number(tmp_path: Path) -> None:
    path = modules.scripted(Rate(), tmp_path / "net.pt")
    arrays = {"0|x": np.ones((1, 4), np.float32), "1|x": np.ones((1, 4), np.float32),
              "0|rate": np.array(8000), "1|rate": np.array(8000)}  # fmt: skip
    made = convert(path, save(tmp_path / "d.npz", **arrays))
    assert "rate is fixed at 8000" in made.notes


def test_an_input_that_counts_no_samples_is_taken_whole(tmp_path: Path) -> None:
    path = modules.scripted(Shift(), tmp_path / "net.pt")
    x, offset = np.ones((8, 4), np.float32), np.ones((1, 4), np.float32)
    made = convert(path, save(tmp_path / "d.npz", x=x, offset=offset))
    shapes = {name: shape for name, (_, shape) in inputs_of(made.path).items()}
    assert shapes == {"x": ["batch", 4], "offset": [1, 4]}


def test_names_that_differ_are_told_with_both_sides(tmp_path: Path) -> None:
    path = modules.scripted(Tokens(), tmp_path / "net.pt")
    data = save(tmp_path / "d.npz", tokens=np.zeros((4, 5), np.int64))
    with pytest.raises(InvalidData) as caught:
        convert(path, data)
    assert caught.value.code == "input_names_differ"
    assert "tokens" in caught.value.message
    assert "(ids: Tensor, mask: Tensor)" in caught.value.message


ONES = np.ones((1, 4), np.float32)


def _structured() -> np.ndarray:
    return np.zeros(3, [("a", "f4"), ("b", "i4")])


@pytest.mark.parametrize(
    ("arrays", "named"),
    [
        ({"x": np.array([{}], object)}, "pickled"),
        ({"x": _structured()}, "structured"),
        ({"0|x": np.ones((1, 4), np.float32), "x": np.ones((1, 4), np.float32)}, "mixes"),
        (
            {"0|x": np.ones((1, 4), np.float32), "2|x": np.ones((1, 4), np.float32)},
            "every sample",
        ),
        (
            {"0|x": np.ones((1, 4), np.float32), "1|x": np.ones(4, np.float32)},
            "numbers of axes",
        ),
        ({"x": np.zeros((0, 4), np.float32)}, "no sample"),
        ({"x": np.ones((3, 5), np.float32)}, "x: float32[1, 5]"),
    ],
)
def test_data_that_cannot_be_samples_is_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], named: str
) -> None:
    path = modules.scripted(nn.Linear(4, 2), tmp_path / "net.pt")
    renamed = {name.replace("x", "input"): array for name, array in arrays.items()}
    with pytest.raises(InvalidData) as caught:
        convert(path, save(tmp_path / "d.npz", **renamed))
    assert named.replace("x:", "input:") in caught.value.message


def test_a_zip_of_images_says_nothing_of_shapes(tmp_path: Path) -> None:
    path = modules.scripted(modules.ConvNet(), tmp_path / "net.pt")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("cat/1.jpg", b"\xff\xd8\xff")
    with pytest.raises(MissingInputs):
        convert(path, tmp_path / "d.zip")
    made = convert(path, tmp_path / "d.zip", {"x": {"shape": [1, 3, 8, 8]}})
    assert inputs_of(made.path)["x"][1] == ["batch", 3, 8, 8]


def test_a_cut_off_archive_is_refused(tmp_path: Path) -> None:
    path = modules.scripted(nn.Linear(4, 2), tmp_path / "net.pt")
    data = save(tmp_path / "d.npz", input=np.ones((30, 4), np.float32))
    data.write_bytes(data.read_bytes()[:200])
    with pytest.raises(InvalidData, match="damaged"):
        convert(path, data)


def test_a_header_that_claims_more_than_there_is_costs_no_memory(tmp_path: Path) -> None:
    path = modules.scripted(nn.Linear(4, 2), tmp_path / "net.pt")
    np.save(tmp_path / "d.npy", np.ones((3, 4), np.float32))
    data = bytearray((tmp_path / "d.npy").read_bytes())
    at = data.index(b"(3, 4), }")
    data[at : at + 20] = b"(3, 4000000000), }  "
    (tmp_path / "d.npy").write_bytes(data)
    with pytest.raises(InvalidData, match="more values than there are"):
        convert(path, tmp_path / "d.npy")
