"""Uploads are recognised by their bytes alone, in little memory, and refused by name."""

import contextlib
import io
import os
import pickle
import random
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import parser
from torch import nn

from tests import torch_modules as modules
from worker.compression import UnsupportedFormat
from worker.ingest import recognise
from worker.ingest.refusals import CODES

MODEL = """<ir_version: 10, opset_import: ["" : 17]>
tiny (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"""


def onnx_bytes() -> bytes:
    data: bytes = parser.parse_model(MODEL).SerializeToString()
    return data


def zipped(*entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return stream.getvalue()


def saved(value: object, **options: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def legacy(value: object) -> bytes:
    return saved(value, _use_new_zipfile_serialization=False)


def tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.onnx"))
    return stream.getvalue()


def npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.zeros(3))
    return stream.getvalue()


def saved_model() -> bytes:
    """schema version 1, then a MetaGraphDef that begins with its own nested message."""
    return b"\x08\x01\x12\x06\x0a\x04\x0a\x02ab"


def refused(path: Path) -> UnsupportedFormat:
    with pytest.raises(UnsupportedFormat) as caught:
        recognise(path)
    assert caught.value.hint
    assert caught.value.code in CODES
    return caught.value


def write(folder: Path, data: bytes, name: str = "upload") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


LAYER = nn.Linear(2, 2)
NET = nn.Sequential(LAYER, nn.ReLU())

REFUSED: dict[str, list[Callable[[], bytes]]] = {
    "pickled_module": [
        lambda: saved(NET), lambda: legacy(NET), lambda: saved(NET, pickle_protocol=4),
        lambda: saved({"epoch": 3, "model": NET}), lambda: saved(modules.ConvNet()),
    ],
    "state_dict": [
        lambda: saved(NET.state_dict()), lambda: legacy(NET.state_dict()),
        lambda: saved({"epoch": 3, "state_dict": NET.state_dict(),
                       "optimizer": torch.optim.Adam(NET.parameters()).state_dict()}),
        lambda: saved([torch.zeros(3)], pickle_protocol=4),
    ],
    "unsupported_pickle": [lambda: pickle.dumps({"a": 1}), lambda: pickle.dumps(Path("x"), 2)],
    "torch_export": [
        lambda: zipped(("m/archive_format", b"pt2"), ("m/models/model.json", b"{}"),
                       ("m/data/weights/w.pt", b""), ("m/data.pkl", b"")),
        lambda: zipped(("serialized_exported_program.json", b"{}"), ("version", b"1")),
    ],
    "keras_model": [lambda: zipped(("metadata.json", b"{}"), ("config.json", b"{}"),
                                   ("model.weights.h5", b""))],
    "hdf5_file": [lambda: b"\x89HDF\r\n\x1a\n" + bytes(100)],
    "saved_model": [saved_model, lambda: zipped(("m/saved_model.pb", saved_model()),
                                                ("m/variables/variables.index", b""))],
    "frozen_graph": [lambda: b"\x0a\x06\x0a\x01x\x12\x01y"],
    "tflite": [lambda: b"\x1c\x00\x00\x00TFL3" + bytes(60)],
    "safetensors": [lambda: struct.pack("<Q", 10) + b'{"a":[]}  ' + bytes(30)],
    "gguf": [lambda: b"GGUF\x03\x00\x00\x00" + bytes(30)],
    "mar_archive": [lambda: zipped(("MAR-INF/MANIFEST.json", b"{}"), ("model.pt", b""))],
    "tar_archive": [tar],
    "compressed_file": [lambda: b"\x1f\x8b\x08" + bytes(30), lambda: b"Rar!" + bytes(30)],
    "html_page": [lambda: b"\n <!DOCTYPE html><html><body>Sign in</body></html>",
                  lambda: b"\xef\xbb\xbf<html><head></head></html>"],
    "lfs_pointer": [lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"],
    "openvino_model": [lambda: b'<?xml version="1.0"?>\n<net name="m" version="11"></net>'],
    "coreml_model": [lambda: b"\x08\x04\x12\x02\x0a\x00\xa2\x1f\x01a"],
    "paddle_model": [lambda: b"\x0a\x04\x08\x00\x10\x01"],
    "ncnn_model": [lambda: b"7767517\n75 83\nInput data 0 1 data\n"],
    "ort_format": [lambda: b"\x24\x00\x00\x00ORTM" + bytes(60)],
    "numpy_file": [npz, lambda: b"\x93NUMPY\x01\x00" + bytes(60)],
    "several_models": [lambda: zipped(("a.onnx", b"1"), ("b.onnx", b"2"))],
    "unsupported_zip": [lambda: zipped(("a.txt", b"1"), ("b/c.jpg", b"2")), lambda: zipped()],
    "empty_file": [lambda: b""],
    "no_graph": [lambda: b"\x08\x0a\x12\x03abc"],
    "unknown_format": [lambda: bytes(range(1, 200)), lambda: b"hello, I am a model",
                       lambda: b'{"error": "not found"}', lambda: b"\x89PNG\r\n\x1a\n1234",
                       lambda: b"\x7fELF\x02\x01\x01" + bytes(90), lambda: bytes(5000)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("code", "number"),
    [(code, number) for code, makers in REFUSED.items() for number in range(len(makers))],
)
def test_what_is_no_model_here_is_refused_by_name(
    tmp_path: Path, code: str, number: int
) -> None:
    with modules.quiet():
        data = REFUSED[code][number]()
    assert refused(write(tmp_path, data)).code == code


def test_models_are_recognised(tmp_path: Path) -> None:
    assert recognise(write(tmp_path, onnx_bytes())) == "onnx"
    script = modules.scripted(modules.ConvNet(), tmp_path / "a.pt")
    assert recognise(script) == "torchscript"
    trace = modules.traced(modules.ConvNet().eval(), tmp_path / "b.pt", torch.zeros(1, 3, 8, 8))
    assert recognise(trace) == "torchscript"
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        data = zipped(
            ("m/model.onnx", onnx_bytes()),
            ("m/model.onnx.data", b"1" * 9),
            ("__MACOSX/m/._model.onnx", b""),
            ("m/README.md", b""),
            method=method,
        )
        assert recognise(write(tmp_path, data)) == "onnx_zip"


def test_a_pickled_class_is_named(tmp_path: Path) -> None:
    with modules.quiet():
        path = write(tmp_path, saved(modules.ConvNet()))
    assert "torch_modules.ConvNet" in refused(path).message


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
            return os.system, (f"touch {tmp_path / 'owned'}",)

    for data in (pickle.dumps(Attack(), 2), pickle.dumps(Attack(), 5)):
        refused(write(tmp_path, data))
        refused(write(tmp_path, zipped(("m/data.pkl", data), ("m/version", b"3"))))
    assert not (tmp_path / "owned").exists()


def test_every_cut_of_a_model_is_told_as_cut_off(tmp_path: Path) -> None:
    whole = onnx_bytes()
    graph_at = whole.index(b"\x3a")  # the tag of the graph
    for end in range(graph_at + 2, len(whole) - 10):
        assert refused(write(tmp_path, whole[:end])).code == "truncated_file"
    archive = modules.scripted(modules.ConvNet(), tmp_path / "a.pt").read_bytes()
    for end in range(4, len(archive) - 1, 97):
        assert refused(write(tmp_path, archive[:end])).code == "truncated_file"


def _named(name: str) -> bytes:
    """A zip whose one name is changed afterwards, to what zipfile would not write."""
    return zipped(("a" * len(name), b"1")).replace(b"a" * len(name), name.encode())


def _with_mode(mode: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        info = zipfile.ZipInfo("link.onnx")
        info.create_system, info.external_attr = 3, mode << 16
        archive.writestr(info, "/etc/passwd")
    return stream.getvalue()


def _patched(offset: int, new: bytes, *, central: bool) -> bytes:
    data = bytearray(zipped(("model.onnx", b"1" * 100)))
    at = (data.index(b"PK\x01\x02") if central else 0) + offset
    data[at : at + len(new)] = new
    return bytes(data)


def _overlapping() -> bytes:
    """Two entries of the directory; the second lies inside of the first."""
    inner = zipped(("b.onnx", b"1" * 1000))
    directory, end = inner.index(b"PK\x01\x02"), inner.index(b"PK\x05\x06")
    outer = zipped(("a.onnx", inner[:directory]))
    start, stop = outer.rindex(b"PK\x01\x02"), outer.rindex(b"PK\x05\x06")
    second = inner[directory:end][:42] + struct.pack("<L", 36) + b"b.onnx"
    both = outer[start:stop] + second
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, len(both), start, 0)
    return outer[:start] + both + tail


UNSAFE: dict[str, Callable[[], bytes]] = {
    "parent": lambda: _named("../model.onnx"),
    "absolute": lambda: _named("/etc/m.onnx"),
    "drive": lambda: _named("c:model.onnx"),
    "backslash": lambda: _named("..\\model.onnx"),
    "null": lambda: _named("m\0del.onnx"),
    "newline": lambda: _named("mo\nel.onnx"),
    "dot": lambda: _named("a/./m.onnx"),
    "empty part": lambda: _named("a//m.onnx"),
    "symlink": lambda: _with_mode(stat.S_IFLNK | 0o777),
    "fifo": lambda: _with_mode(stat.S_IFIFO | 0o777),
    "encrypted": lambda: _patched(8, b"\x01\x00", central=True),
    "unknown method": lambda: _patched(10, b"\x0e\x00", central=True),
    "sizes differ between headers": lambda: _patched(22, b"\x09\x00\x00\x00", central=False),
    "larger than the file": lambda: _patched(20, b"\x00\x00\x00\x7f" * 2, central=True),
    "header elsewhere": lambda: _patched(42, b"\x07\x00\x00\x00", central=True),
    "name differs": lambda: _patched(30, b"other", central=False),
    "several disks": lambda: _patched(34, b"\x02\x00", central=True),
    "bytes after its end": lambda: zipped(("m.onnx", b"1")) + b"more",
    "bytes before its beginning": lambda: b"PK\x03\x04" + bytes(40) + zipped(("m.onnx", b"1")),
    "bomb": lambda: zipped(("m.onnx", bytes(80_000_000)), method=zipfile.ZIP_DEFLATED),
    "overlap": _overlapping,
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_archive_that_breaks_a_rule_is_refused(tmp_path: Path, name: str) -> None:
    assert refused(write(tmp_path, UNSAFE[name]())).code == "unsafe_archive"


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    error = refused(write(tmp_path, zipped(("m.onnx", b"1"), ("m.onnx", b"2"))))
    assert "'m.onnx' occurs twice" in error.message


def test_too_many_entries_are_refused_before_they_are_read(tmp_path: Path) -> None:
    data = zipped(*[(f"{number}.bin", b"") for number in range(20_001)])
    assert "20001 entries" in refused(write(tmp_path, data)).message


def _claims() -> dict[str, bytes]:
    """Files that claim to hold far more than they do."""
    huge = b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
    entries = zipped(*[(f"{number:0900}", b"") for number in range(3_000)])
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 9, 9, 0xFFFFFFF0, 0, 0)
    return {
        "protobuf": b"\x08\x0a\x3a" + huge,
        "nested protobuf": onnx_bytes() + b"\x72" + huge,
        "pickle": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + bytes(90),
        "legacy pickle": legacy(NET.state_dict())[:90] + b"\x8b\xff\xff\xff\x7f",
        "directory": b"PK\x03\x04" + bytes(100) + end,
        "long names": entries,
        "safetensors": struct.pack("<Q", 2**26) + b'{"a":1}' + bytes(30),
        "zeros": bytes(30_000_000),
        "many fields": b"\x08\x0a" + b"\x72\x00" * 2_000_000 + onnx_bytes(),
        "opcodes": b"\x80\x04" + b"N" * 5_000_000,
    }


def test_recognising_takes_little_memory_whatever_the_file_claims(tmp_path: Path) -> None:
    for name, data in _claims().items():
        path = write(tmp_path, data)
        tracemalloc.start()
        with contextlib.suppress(UnsupportedFormat):
            recognise(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8_000_000, name


def test_damaged_files_are_recognised_or_refused_and_nothing_else(tmp_path: Path) -> None:
    choose = random.Random(0)  # noqa: S311 - seeded on purpose
    script = modules.scripted(modules.ConvNet(), tmp_path / "a.pt").read_bytes()
    bundle = zipped(
        ("m.onnx", onnx_bytes()), ("m.data", bytes(50)), method=zipfile.ZIP_DEFLATED
    )
    with modules.quiet():
        seeds = [onnx_bytes(), script, bundle, saved(NET), legacy(NET), saved_model()]
    for number in range(600):
        data = bytearray(choose.choice(seeds))
        for _ in range(choose.randint(1, 6)):
            data[choose.randrange(len(data))] = choose.randrange(256)
        path = write(tmp_path, bytes(data[: choose.randint(1, len(data))]), str(number % 2))
        with contextlib.suppress(UnsupportedFormat):
            assert recognise(path) in ("onnx", "onnx_zip", "torchscript")


def test_each_refusal_is_tried() -> None:
    tried = {*REFUSED, "truncated_file", "unsafe_archive", "damaged_archive"}
    assert CODES - tried == {
        "torch_package", "torch_mobile", "tensorrt_engine", "executorch_program",
    }  # fmt: skip


def test_a_valid_model_with_unknown_later_fields_is_still_onnx(tmp_path: Path) -> None:
    assert recognise(write(tmp_path, onnx_bytes() + b"\xf2\x01\x03abc")) == "onnx"
    assert onnx.load_model_from_string(onnx_bytes()).graph.name == "tiny"
