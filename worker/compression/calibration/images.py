"""A zip of images as samples: decoded when asked for, with the preprocessing of the recipe."""

import re
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np

from worker.compression.calibration.archive import entry
from worker.compression.calibration.columns import fits, spec_batch
from worker.compression.calibration.image_settings import PRESET_SIZES, Images
from worker.compression.calibration.pictures import read_picture, unreadable
from worker.compression.calibration.samples import Feed, Picked
from worker.compression.errors import InvalidData
from worker.compression.graph import InputSpec

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_MAX_IMAGE_BYTES = 256 << 20


@dataclass(frozen=True)
class ImageFeeds(Sequence[Feed]):
    """Feeds of one input, a batch of pictures each."""

    archive: zipfile.ZipFile
    entries: Sequence[zipfile.ZipInfo]
    spec: InputSpec
    images: Images
    size: tuple[int, int]
    nhwc: bool
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.entries) // spec_batch(self.spec)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> Picked[Feed]: ...
    def __getitem__(self, index: int | slice) -> Feed | Picked[Feed]:
        if isinstance(index, slice):
            return Picked(self, range(len(self))[index])
        if not 0 <= index < len(self):
            raise IndexError(index)
        batch = spec_batch(self.spec)
        chosen = self.entries[index * batch : (index + 1) * batch]
        pictures = np.stack([self._picture(info) for info in chosen])
        return {self.spec.name: pictures if len(self.spec.shape) == 4 else pictures[0]}

    def _picture(self, info: zipfile.ZipInfo) -> np.ndarray:
        with self.lock, entry(self.archive, info) as stream:
            return read_picture(
                stream, info.filename, self.images, size=self.size, nhwc=self.nhwc
            )


def image_entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The pictures, in the order a person would count them: 2.png before 10.png."""
    found = [
        info
        for info in archive.infolist()
        if info.filename.lower().endswith(SUFFIXES)
        and not Path(info.filename).name.startswith(".")
        and not info.filename.startswith("__MACOSX")
    ]
    return sorted(found, key=lambda info: _natural(info.filename))


def image_feeds(
    archive: zipfile.ZipFile,
    entries: Sequence[zipfile.ZipInfo],
    specs: Sequence[InputSpec],
    images: Images,
) -> ImageFeeds:
    """Feeds of the pictures, once one of them has been tried.

    Raises:
        InvalidData: the model does not take one picture, or a picture cannot be read.
    """
    if len(specs) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise InvalidData(
            f"a zip of images feeds one input, but the model has {len(specs)}: {names}",
            hint="send .npz with an array for each input",
        )
    spec = specs[0]
    nhwc = is_nhwc(spec, images)
    feeds = ImageFeeds(archive, entries, spec, images, image_size(spec, images), nhwc)
    if not len(feeds):
        raise InvalidData(
            f"{len(entries)} images do not fill one batch of {spec_batch(spec)}",
            hint="send more images",
        )
    for info in entries:
        if info.file_size > _MAX_IMAGE_BYTES:
            raise unreadable(info.filename, f"{info.file_size:,} bytes are too many")
    _check(feeds[0][spec.name], spec)
    return feeds


def is_nhwc(spec: InputSpec, images: Images) -> bool:
    """Whether channels come last: as stated, else where the shape has 1 or 3 of them."""
    if images.layout != "auto":
        return images.layout == "nhwc"
    channels = 1 if images.color == "gray" else 3
    return len(spec.shape) >= 3 and spec.shape[-1] == channels and spec.shape[-3] != channels


def image_size(spec: InputSpec, images: Images) -> tuple[int, int]:
    """Height and width: as stated, else those of the input, else the preset's.

    Raises:
        InvalidData: none of these says how large.
    """
    if images.size is not None:
        return images.size
    sides = spec.shape[-3:-1] if is_nhwc(spec, images) else spec.shape[-2:]
    if len(sides) == 2 and isinstance(sides[0], int) and isinstance(sides[1], int):
        return sides[0], sides[1]
    if usual := PRESET_SIZES.get(images.preset or ""):
        return usual
    raise InvalidData(
        f"input {spec.name!r} of shape {list(spec.shape)} does not say how large images are",
        hint='set images.size to [height, width] in the recipe: {"size": [224, 224]}',
    )


def _check(value: np.ndarray, spec: InputSpec) -> None:
    if value.dtype != spec.dtype:
        raise InvalidData(
            f"the images become {value.dtype}, but input {spec.name!r} takes {spec.dtype}",
            hint=f'set images.dtype to "{spec.dtype}" in the recipe',
        )
    if spec.ranked and not fits(value.shape, spec):
        raise InvalidData(
            f"the images become {list(value.shape)}, but input {spec.name!r} takes "
            f"{list(spec.shape)}",
            hint="set images.size ([height, width]), layout and color in the recipe",
        )


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
    ]
