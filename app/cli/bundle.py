"""An ONNX file whose weights lie in other files, packed as the service takes it."""

import mmap
import zipfile
from pathlib import Path

#: Shorter names would be found in any model by chance.
SHORTEST_NAME = 4


def with_external_data(model: Path, folder: Path) -> Path:
    """The model; or a zip of it, in `folder`, with the files beside it that it names.

    It is not parsed here: that is the sealed child's to do. A file whose name stands nowhere in
    the model's bytes is none of its data.
    """
    if model.suffix.lower() != ".onnx":
        return model
    data = _named_in(model)
    if not data:
        return model
    packed = folder / "model.zip"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED, allowZip64=True) as file:
        for path in (model, *data):
            file.write(path, path.name)
    return packed


def _named_in(model: Path) -> list[Path]:
    if model.stat().st_size == 0:
        return []
    beside = [path for path in model.parent.iterdir() if path != model and path.is_file()]
    names = [path for path in beside if len(path.name) >= SHORTEST_NAME]
    # A second model is none of this one's data, even where they share a name.
    names = [path for path in names if path.suffix.lower() != ".onnx"]
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return sorted(path for path in names if text.find(path.name.encode()) >= 0)
