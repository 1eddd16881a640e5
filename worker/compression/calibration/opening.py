"""Calibration and evaluation files, recognised by their bytes, not by their names."""

import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from worker.compression.calibration import npy
from worker.compression.calibration.archive import open_zip
from worker.compression.calibration.arrays import (
    array_entries,
    read_labels,
    read_npy,
    read_npz,
)
from worker.compression.calibration.columns import spec_batch
from worker.compression.calibration.image_settings import Images
from worker.compression.calibration.images import image_entries, image_feeds
from worker.compression.calibration.lint import lint
from worker.compression.calibration.samples import CalibrationSet, Source
from worker.compression.calibration.storage import ArrayFile
from worker.compression.calibration.targets import labels, labels_key
from worker.compression.errors import InvalidData
from worker.compression.graph import InputSpec

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_NOT_DATA = {
    b"\x89HDF": "an HDF5 file",
    b"\x80": "a pickle, which is never loaded",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a gzip file",
    b"MATLAB": "a MATLAB file",
    b"\xff\xd8\xff": "a single image",
    b"\x89PNG": "a single image",
}
_SAVE = "save it with numpy.savez('data.npz', input_name=array), samples along the first axis"


def open_samples(
    path: Path,
    specs: Sequence[InputSpec],
    *,
    workdir: Path,
    source: Source,
    images: Images | None = None,
) -> CalibrationSet:
    """Open .npz, .npy or a zip of images; values are copied to `workdir` and read lazily.

    Memory does not grow with their number. Warns of constant, duplicate and unused data.

    Raises:
        InvalidData: the file is broken or does not fit the model; names the key and the remedy.
    """
    if not specs:
        raise InvalidData("the model takes no input, so there is nothing to feed")
    head = npy.first_bytes(path)
    handle, name = tempfile.mkstemp(prefix=f"{source}-", suffix=".bin", dir=workdir)
    os.close(handle)
    with ArrayFile(Path(name)) as into:
        if head.startswith(npy.MAGIC):
            samples = read_npy(path, specs, into=into, source=source)
        elif head.startswith(_ZIP):
            samples = _from_zip(path, specs, into, workdir, source, images)
        else:
            raise _not_data(head)
    lint(samples)
    return samples


def _from_zip(
    path: Path,
    specs: Sequence[InputSpec],
    into: ArrayFile,
    workdir: Path,
    source: Source,
    images: Images | None,
) -> CalibrationSet:
    archive = open_zip(path, workdir)
    try:
        pictures = image_entries(archive)
        if not pictures or set(array_entries(archive)) - {labels_key(specs)}:
            samples = read_npz(archive, specs, into=into, source=source)
            archive.close()
            return samples
        # With images the archive stays open: they are decoded when a sample is asked for.
        return _pictures(archive, pictures, specs, into, source, images)
    except BaseException:
        archive.close()
        raise


def _pictures(
    archive: zipfile.ZipFile,
    pictures: Sequence[zipfile.ZipInfo],
    specs: Sequence[InputSpec],
    into: ArrayFile,
    source: Source,
    images: Images | None,
) -> CalibrationSet:
    if images is None:
        raise InvalidData(
            f"the data is a zip of {len(pictures)} images, but the recipe does not say how an "
            "image becomes an input",
            hint='add "images" to the recipe: a preset, such as "imagenet", or settings, as in '
            '{"size": [224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}',
        )
    found = image_feeds(archive, pictures, specs, images)
    stored = read_labels(archive, labels_key(specs), into)
    if stored is None:
        return CalibrationSet(found, source)
    targets = labels(stored, count=len(found), batch=spec_batch(specs[0]))
    return CalibrationSet(found, source, targets)


def _not_data(head: bytes) -> InvalidData:
    if not head:
        return InvalidData("the data file is empty", hint=_SAVE)
    what = next((name for magic, name in _NOT_DATA.items() if head.startswith(magic)), None)
    return InvalidData(
        f"the data is {what or 'neither .npz nor .npy nor a zip of images'}", hint=_SAVE
    )
