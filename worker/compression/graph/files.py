"""Model files: read lazily, written whole, external data beside them."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from worker.compression.errors import InvalidModel

# Protobuf ends at 2 GiB; above this the weights go into a file of their own.
SINGLE_FILE_BYTES = 1_500_000_000
# Smaller tensors stay in the model file: shapes and axes, which tools look at.
_SPILLED_BYTES = 4096


def load(path: Path) -> ir.Model:
    """Read a model; external data stays in its file, memory-mapped.

    Raises:
        InvalidModel: the file is no ONNX model, or its external data is missing or unsafe.
    """
    path = path.resolve()
    try:
        model = ir.load(path)
    except OSError as error:
        raise InvalidModel(f"{path.name} cannot be opened: {error.strerror}") from error
    except DecodeError as error:
        raise InvalidModel(
            f"{path.name} is not an ONNX file, or it is cut off",
            hint="export the model again and upload the complete .onnx file",
        ) from error
    except Exception as error:
        _check_outputs(path)
        raise InvalidModel(f"{path.name} is not a valid ONNX model: {error}") from error
    if not model.graph.outputs:
        raise InvalidModel(
            f"{path.name} holds no graph with an output",
            hint="export the model again and upload the complete .onnx file",
        )
    for tensor in _external_tensors(model):
        _check_external(tensor, path.parent)
    _check_read(model, path.name)
    return model


def _check_outputs(path: Path) -> None:
    """Maps, which classical models give, are not what the reader of graphs knows.

    Raises:
        InvalidModel: an output is one.
    """
    for output in onnx.load(path, load_external_data=False).graph.output:
        kind, inner = output.type, output.type.sequence_type.elem_type
        if kind.HasField("map_type") or inner.HasField("map_type"):
            what = "a map" if kind.HasField("map_type") else "a sequence of maps"
            raise InvalidModel(
                f"output {output.name!r} is no tensor but {what}",
                hint="export the model with tensors as outputs "
                "(skl2onnx: options={'zipmap': False})",
            )


def _check_read(model: ir.Model, name: str) -> None:
    """Refuse a model whose nodes read what is nowhere; onnx_ir knows no sparse initializers."""
    for node in model.graph.all_nodes():
        for value in node.inputs:
            if value is None or value.producer() is not None or value.const_value is not None:
                continue
            if not value.is_graph_input() and not value.is_initializer():
                raise InvalidModel(
                    f"{name}: {node.op_type} {node.name or ''} reads {value.name!r}, which is "
                    "neither an input nor a dense constant nor made by a node",
                    hint="sparse initializers are not supported: store them densely",
                )


def save(model: ir.Model, path: Path) -> None:
    """Write a model to one file, or above 1.5 GB to the file and `<name>.data` beside it.

    The model stays usable, unless it reads its weights from the data file that is replaced.
    """
    path = path.resolve()
    if weight_bytes(model) > SINGLE_FILE_BYTES:
        ir.save(model, path, external_data=f"{path.name}.data")
        return
    onnx.save(to_proto(model), path)


def spill(model: ir.Model, path: Path) -> ir.Model:
    """Write a model with its weights in a data file, and from then on read them from there.

    Frees the memory that the weights took; the model given must not be used any more.
    """
    path = path.resolve()
    ir.external_data.unload_from_model(
        model, path.parent, f"{path.name}.data", size_threshold_bytes=_SPILLED_BYTES
    )
    onnx.save(ir.to_proto(model), path)
    return model


def release(model: ir.Model) -> None:
    """Close the files that weights are read from, one for each; the model is done with.

    Otherwise they stay open until the garbage of its circles is collected.
    """
    for tensor in _external_tensors(model):
        tensor.release()


def remove(path: Path) -> None:
    """Delete a model file that `save` or `spill` wrote, with its data file."""
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    path.unlink()


def file_bytes(path: Path) -> int:
    """Size of a model file with all external data files it names, in bytes."""
    return sum(file.stat().st_size for file in (path, *external_files(path)))


def file_digest(path: Path) -> str:
    """SHA-256 of a model file with all external data files it names, in hexadecimal."""
    found = hashlib.sha256()
    for file in (path, *external_files(path)):
        with file.open("rb") as stream:
            found.update(hashlib.file_digest(stream, "sha256").digest())
    return found.hexdigest()


def external_files(path: Path) -> list[Path]:
    """The external data files that a model names, each once."""
    places = dict.fromkeys(tensor.path for tensor in _external_tensors(load(path)))
    return [Path(place) for place in places]


def weight_bytes(model: ir.Model) -> int:
    """Size of all initializers, in bytes."""
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def _external_initializers(model: ir.Model) -> list[ir.Value]:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return [value for value in values if isinstance(value.const_value, ir.ExternalTensor)]


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """The model as one message, external data included; for models below 1.5 GB."""
    replaced = [(value, value.const_value) for value in _external_initializers(model)]
    try:
        for value, tensor in replaced:
            value.const_value = _inline(tensor)
        return ir.to_proto(model)
    finally:
        for value, tensor in replaced:
            value.const_value = tensor


def _inline(tensor: ir.TensorProtocol | None) -> ir.TensorProtocol:
    if tensor is None:  # not reachable: only external tensors are given
        raise TypeError("an external initializer has no tensor")
    return ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def _external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    for value in _external_initializers(model):
        if isinstance(value.const_value, ir.ExternalTensor):
            yield value.const_value
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if isinstance(attribute.value, ir.ExternalTensor):
                yield attribute.value


def _check_external(tensor: ir.ExternalTensor, folder: Path) -> None:
    """Refuse external data that is missing, too short or outside of the model's folder."""
    data = Path(tensor.path)
    hint = "upload a .zip that holds the model and its external data files side by side"
    if data.is_symlink() or not data.resolve().is_relative_to(folder):
        raise InvalidModel(
            f"tensor {tensor.name!r} keeps its data outside of the model's folder", hint=hint
        )
    if not data.is_file():
        raise InvalidModel(
            f"tensor {tensor.name!r} keeps its data in {str(tensor.location)[:100]!r}, "
            "which is not there",
            hint=hint,
        )
    end = (tensor.offset or 0) + (tensor.length or tensor.nbytes)
    if (tensor.offset or 0) < 0 or end > data.stat().st_size:
        raise InvalidModel(
            f"tensor {tensor.name!r} reaches beyond the end of {data.name}", hint=hint
        )
