"""Check an uploaded ONNX model, alone or in a zip with its external data."""

import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from worker.compression import InvalidModel, graph
from worker.ingest import archive
from worker.ingest.reasons import runtime_reason
from worker.ingest.refusals import refusal

_KNOWN_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc",
                  "com.ms.internal.nhwc"}  # fmt: skip
_TRAINING_DOMAINS = ("ai.onnx.training", "ai.onnx.preview.training")
_UNKNOWN = re.compile(
    r"Could not find an implementation for ([\w.:]+\(\d+\))|"
    r"No Op registered for ([\w.:]+)|([\w.:]+)\(-?\d+\) is not a registered"
)
_LONGEST_PATH = 4096  # of Linux; every part of a longer one would be looked at
_ZIP_IT = "send a .zip of the model and its data files"
_EXPORT_AGAIN = "export the model again, and check it with onnx.checker.check_model"


def unpack(path: Path, folder: Path) -> Path:
    """Unpack a zip of a model and its data; answers the model's path.

    Raises:
        InvalidModel: damaged, or unpacking it gives other sizes than it says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [entry for entry in archive.entries(path) if _is_file(entry)]
    model = next(entry.name for entry in wanted if entry.name.lower().endswith(".onnx"))
    inside = str(PurePosixPath(model).parent)
    with zipfile.ZipFile(path) as opened:
        for entry in wanted:
            if inside == "." or entry.name.startswith(f"{inside}/"):
                _extract(opened, entry, folder / entry.name)
    return folder / model


def not_a_model(path: Path) -> InvalidModel:
    """What is said of an .onnx file in a zip that is something else."""
    return refusal("unknown_format", f"{path.name[:60]!r} in the zip is not an ONNX file")


def _is_file(entry: archive.Entry) -> bool:
    return not entry.folder and not archive.is_litter(entry.name)


def _extract(opened: zipfile.ZipFile, entry: archive.Entry, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened.open(entry.name) as source, target.open("xb") as file:
            shutil.copyfileobj(source, file, 2**20)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, FileExistsError,
            NotADirectoryError, IsADirectoryError) as error:  # fmt: skip
        raise refusal("damaged_archive", f"{entry.name[:60]!r} cannot be unpacked") from error
    if target.stat().st_size != entry.size:
        raise refusal("damaged_archive", f"{entry.name[:60]!r} is not as long as it says")


def check(path: Path, *, alone: bool) -> list[str]:
    """Check a model and load it once in ONNX Runtime; answers what the user should know.

    `alone` says that it was sent without data files.

    Raises:
        InvalidModel: with the reason in a sentence or two.
    """
    model = _read(path)
    _check_external(model, path, alone=alone)
    _check_operators(model)
    _check_training(model)
    del model
    _run_checker(path)
    _load(path)
    return []


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise InvalidModel(
            "the ONNX file is damaged: its protobuf cannot be read",
            hint="compare its size with the original's and send it again",
        ) from error


def _check_external(model: onnx.ModelProto, path: Path, *, alone: bool) -> None:
    """Every external tensor lies inside of a data file that was sent with the model."""
    for tensor in _tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        said = {entry.key: entry.value for entry in tensor.external_data}
        location = said.get("location", "")
        name, shown = tensor.name[:100], location[:100]
        data = path.parent / location
        if alone or len(location) > _LONGEST_PATH or not _is_beside(data, path):
            raise InvalidModel(
                f"the tensor {name!r} keeps its data in {shown!r}, which was not sent",
                hint=_ZIP_IT,
                code="missing_external_data",
            )
        if not _lies_within(said, tensor, data.stat().st_size):
            raise InvalidModel(
                f"the tensor {name!r} reaches beyond the end of its data file {shown!r}",
                hint=f"the data file is not this model's or is cut off: {_ZIP_IT}",
                code="missing_external_data",
            )


def _is_beside(data: Path, path: Path) -> bool:
    """Whether a location is a plain relative path to another file below the model's folder."""
    location = data.relative_to(path.parent) if data.is_relative_to(path.parent) else None
    if location is None or not location.parts or ".." in location.parts:
        return False
    try:
        within = data.resolve().is_relative_to(path.parent.resolve())
        return data != path and within and data.is_file()
    except (OSError, ValueError):  # longer than a name can be, or with a NUL in it
        return False


def _lies_within(said: dict[str, str], tensor: onnx.TensorProto, size: int) -> bool:
    try:
        offset, length = int(said.get("offset", 0)), int(said.get("length", 0))
    except ValueError:
        return False
    return offset >= 0 and length >= 0 and offset + length <= size and (length or size) > 0


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    for part in _graphs(model):
        yield from part.initializer
        for sparse in part.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and all that are nested in its nodes and functions."""
    pending = [model.graph, *_inner(node for item in model.functions for node in item.node)]
    while pending:
        part = pending.pop()
        yield part
        pending += _inner(part.node)


def _inner(nodes: Iterable[onnx.NodeProto]) -> list[onnx.GraphProto]:
    found: list[onnx.GraphProto] = []
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        found += [attribute.g] if attribute.HasField("g") else []
        found += attribute.graphs
    return found


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for part in _graphs(model):
        yield from part.node
    for function in model.functions:
        yield from function.node


def _check_operators(model: onnx.ModelProto) -> None:
    defined = {(function.domain, function.name) for function in model.functions}
    foreign: dict[str, None] = {}
    for node in _nodes(model):
        if node.domain not in _KNOWN_DOMAINS and (node.domain, node.op_type) not in defined:
            if node.domain.startswith(_TRAINING_DOMAINS):
                raise _training(f"it holds the operator {node.domain}::{node.op_type}")
            foreign[f"{node.domain}::{node.op_type}"[:100]] = None
    if foreign:
        raise _unsupported(", ".join(list(foreign)[:5]))


def _unsupported(operators: str) -> InvalidModel:
    return InvalidModel(
        f"the model uses operators that stock ONNX Runtime does not have: {operators}",
        hint="export it with standard ONNX operators only (opset 17 or later)",
        code="unsupported_operator",
    )


def _check_training(model: onnx.ModelProto) -> None:
    if model.training_info:
        raise _training("it holds training information")
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in _nodes(model):
        if node.op_type == "Constant" and node.output and node.attribute:
            constants[node.output[0]] = node.attribute[0].t
    for node in _nodes(model):
        flags = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == "BatchNormalization" and flags.get("training_mode"):
            raise _training(f"its BatchNormalization {node.name[:100]!r} is in training mode")
        if (
            node.op_type == "Dropout"
            and len(node.input) > 2
            and _is_true(constants.get(node.input[2]))
        ):
            raise _training(f"its Dropout {node.name[:100]!r} is in training mode")


def _is_true(tensor: onnx.TensorProto | None) -> bool:
    if tensor is None:
        return False
    return tensor.raw_data == b"\x01" or any(tensor.int32_data)


def _training(what: str) -> InvalidModel:
    return InvalidModel(
        f"this is a graph for training: {what}",
        hint="export it for inference: model.eval() first, then torch.onnx.export",
        code="training_graph",
    )


def _run_checker(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path), full_check=False)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise _refused("the ONNX checker refuses the model", error) from error


def _load(path: Path) -> None:
    try:
        graph.session(path, optimize=False)
    except InvalidModel as error:
        raise _refused("ONNX Runtime cannot load the model", error) from error


def _refused(what: str, error: Exception) -> InvalidModel:
    unknown = _UNKNOWN.search(str(error))
    if unknown:
        return _unsupported(next(name for name in unknown.groups() if name))
    return InvalidModel(f"{what}: {runtime_reason(error)}", hint=_EXPORT_AGAIN)
