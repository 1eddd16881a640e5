"""Recognise an upload by its bytes: standard library only, constant memory, nothing is run.

The web process asks right after an upload, the sandboxed child once more before it reads.
"""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from worker.compression import UnsupportedFormat
from worker.ingest import pickles, protobuf, zipped
from worker.ingest.refusals import refusal

Format = Literal["onnx", "onnx_zip", "torchscript"]

_HEAD = 4_096
_PICKLE_BYTES = 2**20

_MAGIC = {
    b"GGUF": "gguf",
    b"ggml": "gguf",
    b"lmgg": "gguf",
    b"\x89HDF\r\n\x1a\n": "hdf5_file",
    b"\x93NUMPY": "numpy_file",
    b"ftrt": "tensorrt_engine",
    b"ptrt": "tensorrt_engine",
    b"7767517": "ncnn_model",
    b"version https://git-lfs": "lfs_pointer",
}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
}
_FLATBUFFERS = {  # identifier at bytes 4 to 8
    b"TFL3": "tflite",
    b"ORTM": "ort_format",
    b"PTMF": "torch_mobile",
    b"ET12": "executorch_program",
}
_MODEL_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_IR_VERSION, _GRAPH, _OPSETS = 1, 7, 8
_MAX_MODEL_FIELD = 63  # room for what later ONNX versions add
_GRAPH_FIELDS = {1, 2, 5, 10, 11, 12, 13, 14, 15, 16}
_COREML_FIELDS = range(200, 4_000)


def recognise(path: Path) -> Format:
    """Tell what an uploaded file is.

    Raises:
        UnsupportedFormat: known by name and refused, or not known; `code` tells which.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        size = path.stat().st_size
        if not head:
            raise refusal("empty_file")
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return zipped.recognise(path)
        for check in _CHECKS:
            check(file, head, size)
    return "onnx"


def _check_magic(_file: BinaryIO, head: bytes, _size: int) -> None:
    code = next((code for magic, code in _MAGIC.items() if head.startswith(magic)), None)
    code = code or _FLATBUFFERS.get(head[4:8])
    if head[257:262] == b"ustar":
        code = "tar_archive"
    if code:
        raise refusal(code)
    for magic, name in _COMPRESSED.items():
        if head.startswith(magic):
            raise refusal("compressed_file", name)


def _check_safetensors(_file: BinaryIO, head: bytes, size: int) -> None:
    if len(head) < 16 or head[8:10] not in (b'{"', b"{ ", b"{}"):
        return
    (header,) = struct.unpack_from("<Q", head)
    if header < 100 * 2**20:
        raise refusal("safetensors")


def _check_pickle(file: BinaryIO, head: bytes, _size: int) -> None:
    if not pickles.is_pickle(head):
        return
    file.seek(0)
    raise pickles.refused(pickles.describe(file.read(_PICKLE_BYTES)))


def _check_text(_file: BinaryIO, head: bytes, _size: int) -> None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        raise refusal("html_page")
    if text.startswith(b"<?xml"):
        if b"<net " in text:
            raise refusal("openvino_model")
        if b"<html" in text:
            raise refusal("html_page")
    if text.startswith(b"<net "):
        raise refusal("openvino_model")
    if _is_text(head):
        raise refusal("unknown_format", f"it is text that begins {_excerpt(head)}")


def _is_text(head: bytes) -> bool:
    """Whether the beginning is printable UTF-8; a protobuf has control characters in it."""
    try:
        text = head[: _HEAD - 4].decode()
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\r\n\t\f\ufeff" for letter in text)


def _excerpt(head: bytes) -> str:
    line = head[:200].decode("utf-8", "replace").strip().splitlines()
    return json.dumps(line[0][:40] if line else "", ensure_ascii=False)


def _check_protobuf(file: BinaryIO, head: bytes, size: int) -> None:
    """Return for an ONNX model, raise what it is otherwise."""
    seen: dict[int, protobuf.Field] = {}
    try:
        for field in protobuf.fields(file, 0, size):
            seen.setdefault(field.number, field)
    except protobuf.NotProtobuf:
        raise _unknown(head) from None
    except protobuf.CutOff as error:
        if seen and _is_model({**seen, error.field.number: error.field}):
            raise refusal("truncated_file", "a part of it runs past its end") from None
        raise _unknown(head) from None
    _judge(file, seen, head)


def _judge(file: BinaryIO, seen: dict[int, protobuf.Field], head: bytes) -> None:
    if any(number in _COREML_FIELDS for number in seen) and _IR_VERSION in seen:
        raise refusal("coreml_model")
    if _is_model(seen) and _GRAPH in seen:
        _check_graph(file, seen[_GRAPH], head)
        return
    _check_tensorflow(file, seen)
    if _is_model(seen) and _IR_VERSION in seen:
        raise refusal("no_graph")
    raise _unknown(head)


def _is_model(seen: dict[int, protobuf.Field]) -> bool:
    """Whether all fields are ONNX ModelProto's, by number and wire type."""
    if not seen.keys() & {_IR_VERSION, _OPSETS}:
        return False
    return all(
        field.wire == _MODEL_FIELDS.get(number, field.wire) and number <= _MAX_MODEL_FIELD
        for number, field in seen.items()
    )


def _check_graph(file: BinaryIO, graph: protobuf.Field, head: bytes) -> None:
    first = _first_field(file, graph)
    if first is None:
        raise refusal("no_graph")
    if first.number not in _GRAPH_FIELDS:
        raise _unknown(head)


def _check_tensorflow(file: BinaryIO, seen: dict[int, protobuf.Field]) -> None:
    """SavedModel, frozen graph, or PaddlePaddle: told apart by their first nested field."""
    one, two = seen.get(1), seen.get(2)
    if one is not None and one.wire == protobuf.VARINT and two is not None:
        inner = _first_field(file, two)
        if set(seen) == {1, 2} and inner is not None and inner.wire == protobuf.LENGTH:
            raise refusal("saved_model")
    if one is not None and one.wire == protobuf.LENGTH and set(seen) <= {1, 2, 3, 4, 5}:
        inner = _first_field(file, one)
        if inner is not None:
            raise refusal("paddle_model" if inner.wire == protobuf.VARINT else "frozen_graph")


def _first_field(file: BinaryIO, field: protobuf.Field) -> protobuf.Field | None:
    inner: Iterator[protobuf.Field] = protobuf.fields(
        file, field.start, field.start + field.size
    )
    try:
        return next(inner, None)
    except (protobuf.NotProtobuf, protobuf.CutOff):
        return None


def _unknown(head: bytes) -> UnsupportedFormat:
    return refusal("unknown_format", f"its first bytes are {head[:8].hex(' ')}")


_CHECKS: tuple[Callable[[BinaryIO, bytes, int], None], ...] = (
    _check_magic,
    _check_safetensors,
    _check_pickle,
    _check_text,
    _check_protobuf,
)
