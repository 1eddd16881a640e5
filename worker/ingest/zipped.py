"""What a zip holds, by its entries' names: TorchScript, ONNX with its data, or a refusal."""

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from worker.compression import UnsupportedFormat
from worker.ingest import archive, pickles
from worker.ingest.refusals import refusal

_PICKLE_BYTES = 2**20
_SHOWN = 4
_KNOWN_INSIDE = (".pt", ".pth", ".jit", ".keras", ".h5", ".hdf5", ".tflite", ".safetensors",
                 ".gguf", ".pt2")  # fmt: skip


@dataclass
class Contents:
    """What matters of the entries: bounded, however many there are."""

    files: int = 0
    shown: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    arrays: int = 0
    marks: set[str] = field(default_factory=set)
    pickle: archive.Entry | None = None

    def add(self, entry: archive.Entry) -> None:
        if entry.folder or archive.is_litter(entry.name):
            return
        self.files += 1
        path = PurePosixPath(entry.name)
        if len(self.shown) < _SHOWN:
            self.shown.append(entry.name[:60])
        if path.suffix.lower() == ".onnx" and len(self.models) < _SHOWN:
            self.models.append(entry.name)
        self.arrays += path.suffix == ".npy"
        self.marks |= _marks(path)
        if path.name == "data.pkl" and len(path.parts) <= 2:
            self.pickle = entry


def _marks(path: PurePosixPath) -> set[str]:
    """The signs that this entry is of a known format."""
    inner = path.parts[1:] if len(path.parts) > 1 else path.parts
    marks = {path.name} & {
        "archive_format", "serialized_exported_program.json", "saved_model.pb", "metadata.json",
        "model.weights.h5", "inference.pdmodel", "Manifest.json",
    }  # fmt: skip
    if len(path.parts) == 2 and path.name in ("constants.pkl", "data.pkl", "bytecode.pkl"):
        marks.add(path.name)
    if inner[0] == "code" and len(inner) > 1:
        marks.add("code/")
    if path.parts[0] == "MAR-INF":
        marks.add("MAR-INF/")
    if ".data" in path.parts and path.name in ("extern_modules", "python_version"):
        marks.add("torch_package")
    if path.suffix.lower() in _KNOWN_INSIDE:
        marks.add("packed_model")
    if "com.apple.CoreML" in path.parts:
        marks.add("coreml")
    return marks


def recognise(path: Path) -> Literal["torchscript", "onnx_zip"]:
    """Tell what a zip is; every entry is checked on the way.

    Raises:
        UnsupportedFormat: anything but TorchScript or one ONNX model with its data files.
    """
    contents = Contents()
    for entry in archive.entries(path):
        contents.add(entry)
    marks = contents.marks
    if {"constants.pkl", "data.pkl", "code/"} <= marks and "archive_format" not in marks:
        return "torchscript"
    if refused := _refused(contents):
        raise refused
    if contents.pickle is not None:
        raise _pickled(path, contents.pickle)
    if len(contents.models) == 1:
        return "onnx_zip"
    raise _other(contents)


def _refused(contents: Contents) -> UnsupportedFormat | None:
    marks = contents.marks
    if marks & {"archive_format", "serialized_exported_program.json"}:
        return refusal("torch_export")
    if "torch_package" in marks and contents.pickle is None:
        return refusal("torch_package")
    if "MAR-INF/" in marks:
        return refusal("mar_archive")
    if {"model.weights.h5", "metadata.json"} <= marks:
        return refusal("keras_model")
    if contents.models:
        return None
    if "saved_model.pb" in marks:
        return refusal("saved_model")
    if "coreml" in marks:
        return refusal("coreml_model")
    if "inference.pdmodel" in marks:
        return refusal("paddle_model")
    return None


def _pickled(path: Path, entry: archive.Entry) -> UnsupportedFormat:
    pickled = pickles.describe(archive.head(path, entry, _PICKLE_BYTES))
    return pickles.refused(pickled)


def _other(contents: Contents) -> UnsupportedFormat:
    if contents.models:
        return refusal("several_models", ", ".join(contents.models))
    if not contents.files:
        return refusal("unsupported_zip", "nothing at all")
    if contents.arrays == contents.files:
        return refusal("numpy_file")
    more = (
        f" and {contents.files - len(contents.shown)} more" if contents.files > _SHOWN else ""
    )
    return refusal("unsupported_zip", ", ".join(contents.shown) + more)
