"""ONNX uploads, alone or in a zip with their data: taken as they are, or refused readably."""

import io
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from worker.compression import InvalidModel
from worker.ingest import Ingested, ingest

WEIGHT = np.arange(4096, dtype=np.float32).reshape(4, 1024)


def linear(weight: np.ndarray = WEIGHT) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="dense")],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1024])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def text(nodes: str, opsets: str = '"" : 17') -> onnx.ModelProto:
    return parser.parse_model(
        f"<ir_version: 10, opset_import: [{opsets}]>\n"
        f"m (float[N, 4] x) => (float[N, 4] y) {{ {nodes} }}"
    )


def outside(location: str = "w.bin", **said: object) -> onnx.ModelProto:
    """The linear model with its weight in a data file."""
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": 0, "length": 16384, **said}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return stream.getvalue()


def send(folder: Path, data: bytes | onnx.ModelProto) -> Ingested:
    path = folder / "upload"
    path.write_bytes(data if isinstance(data, bytes) else data.SerializeToString())
    return ingest(path, folder / "out.onnx", workdir=folder)


def refused(folder: Path, data: bytes | onnx.ModelProto) -> InvalidModel:
    with pytest.raises(InvalidModel) as caught:
        send(folder, data)
    error = caught.value
    assert error.hint
    assert "\n" not in error.message
    assert len(error.message) < 500
    assert str(folder) not in error.message
    return error


def test_a_single_file_stays_where_it_is_unchanged(tmp_path: Path) -> None:
    data = linear().SerializeToString()
    taken = send(tmp_path, data)
    assert taken.format == "onnx"
    assert taken.path.read_bytes() == data
    assert [item.name for item in tmp_path.iterdir()] == ["upload"]


@pytest.mark.parametrize("folder", ["", "bert/"])
def test_a_zip_of_model_and_data_is_unpacked_side_by_side(tmp_path: Path, folder: str) -> None:
    model = outside("weights/w.bin").SerializeToString()
    entries = {
        f"{folder}model.onnx": model,
        f"{folder}weights/w.bin": WEIGHT.tobytes(),
        f"{folder}README.md": b"how to",
        f"__MACOSX/{folder}._model.onnx": b"\0",
    }
    taken = send(tmp_path, zipped(entries))
    assert taken.format == "onnx_zip"
    assert taken.path.read_bytes() == model
    loaded = onnx.load(taken.path)
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.graph.initializer[0]), WEIGHT)


def test_data_that_was_not_sent_is_named_with_the_remedy(tmp_path: Path) -> None:
    error = refused(tmp_path, outside("model.onnx.data"))
    assert error.code == "missing_external_data"
    assert "'model.onnx.data'" in error.message
    assert ".zip of the model and its data files" in str(error.hint)


def test_a_single_file_never_reads_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHT.tobytes())
    assert refused(tmp_path, outside("w.bin")).code == "missing_external_data"


@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "/etc/passwd",
        "w.bin/../../secret",
        "",
        ".",
        "weights",
        "model.onnx",
        "W.bin",
        "w.bin\0/secret",
        "w" * 300,
        "w/" * 500_000,
    ],
    ids=lambda location: repr(location[:20]),
)
def test_a_location_that_is_no_file_of_the_zip_is_refused(
    tmp_path: Path, location: str
) -> None:
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    entries = {
        "model.onnx": outside(location).SerializeToString(),
        "w.bin": WEIGHT.tobytes(),
        "weights/other.bin": b"1",
    }
    assert refused(tmp_path, zipped(entries)).code == "missing_external_data"


@pytest.mark.parametrize(
    "said",
    [{"offset": 1}, {"offset": -1}, {"length": -1}, {"length": 2**62}, {"offset": "x"},
     {"length": 16000, "offset": 400}],
)  # fmt: skip
def test_data_beyond_the_end_of_its_file_is_refused(
    tmp_path: Path, said: dict[str, object]
) -> None:
    entries = {"m.onnx": outside(**said).SerializeToString(), "w.bin": WEIGHT.tobytes()}
    assert refused(tmp_path, zipped(entries)).code == "missing_external_data"


def test_data_in_a_nested_graph_is_looked_at_too(tmp_path: Path) -> None:
    model = text("c = Constant <value = bool {1}> () y = Identity (x)")
    branch = outside("../secret").graph
    then = helper.make_graph([], "then", [], [branch.output[0]], branch.initializer)
    model.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=then))
    assert refused(tmp_path, model).code == "missing_external_data"


@pytest.mark.parametrize(
    ("nodes", "opsets", "named"),
    [
        ("y = my.ops.Fancy (x)", '"" : 17, "my.ops" : 1', "my.ops::Fancy"),
        ("y = com.microsoft.NoSuchThing (x)", '"" : 17, "com.microsoft" : 1', "NoSuchThing"),
        ("y = NoSuchOp (x)", '"" : 17', "NoSuchOp"),
    ],
)
def test_operators_that_do_not_exist_here_are_named(
    tmp_path: Path, nodes: str, opsets: str, named: str
) -> None:
    model = text(nodes.replace("my.ops.Fancy", "Fancy").replace("com.microsoft.", ""), opsets)
    if "my.ops" in nodes or "com.microsoft" in nodes:
        model.graph.node[0].domain = "my.ops" if "my.ops" in nodes else "com.microsoft"
    error = refused(tmp_path, model)
    assert error.code == "unsupported_operator"
    assert named in error.message


def test_an_operator_that_the_model_defines_itself_is_no_foreign_one(tmp_path: Path) -> None:
    model = text("y = Twice (x)", '"" : 17, "local" : 1')
    model.graph.node[0].domain = "local"
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, opsets))
    assert send(tmp_path, model).format == "onnx"


def test_graphs_for_training_are_refused(tmp_path: Path) -> None:
    dropout = text("r = Constant <value = float {0.5}> () t = Constant <value = bool {1}> () "
                   "y = Dropout (x, r, t)")  # fmt: skip
    norm = linear()
    takes, gives = ["y", "s", "b", "m", "v"], ["z", "a", "c"]
    norm.graph.node.append(
        helper.make_node("BatchNormalization", takes, gives, training_mode=1)
    )
    informed = linear()
    informed.training_info.add()
    for model in (dropout, norm, informed):
        assert refused(tmp_path, model).code == "training_graph"


def test_a_broken_graph_is_explained_in_a_sentence(tmp_path: Path) -> None:
    assert "nowhere" in refused(tmp_path, text("y = Add (x, nowhere)")).message
    newer = linear()
    newer.ir_version = 99
    refused(tmp_path, newer)
    newer = linear()
    newer.opset_import[0].version = 999
    refused(tmp_path, newer)
    wrong = linear(WEIGHT[:3])
    refused(tmp_path, wrong)


def test_damage_inside_of_the_graph_is_refused(tmp_path: Path) -> None:
    data = bytearray(linear().SerializeToString())
    at = data.index(b"MatMul")
    data[at - 1] = 0xFF  # the length of the operator's name
    assert refused(tmp_path, bytes(data)).code == "invalid_model"


def test_a_zip_whose_onnx_is_something_else_is_refused(tmp_path: Path) -> None:
    for inside in (b"hello", zipped({"m.onnx": b"1"}), b""):
        assert refused(tmp_path, zipped({"m.onnx": inside})).hint


def test_an_entry_that_does_not_unpack_to_what_it_says_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"m.onnx": linear().SerializeToString()}))
    data[60:70] = b"\xff" * 10
    assert refused(tmp_path, bytes(data)).code == "damaged_archive"


def test_two_files_that_need_one_path_are_refused(tmp_path: Path) -> None:
    entries = {"m.onnx": linear().SerializeToString(), "a": b"1", "a/b": b"2"}
    assert refused(tmp_path, zipped(entries)).code == "damaged_archive"
