"""A zip of images as samples: decoded when asked for, with the preprocessing of the recipe."""

import re
import threading
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, overload

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, model_validator

from worker.compression.calibration.archive import entry
from worker.compression.calibration.columns import fits, spec_batch
from worker.compression.calibration.samples import Feed, Picked
from worker.compression.errors import InvalidData
from worker.compression.graph import InputSpec

# Formats with decoders of their own; others start programs (EPS) or are rarely fuzzed.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
MAX_PIXELS = 64_000_000
_MAX_IMAGE_BYTES = 256 << 20
_LETTERBOX_GRAY = 114
_MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}


class Images(BaseModel):
    """How a picture becomes an input: (pixel * scale - mean) / std, pixels from 0 to 255."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: tuple[int, int] | None = Field(
        default=None,
        description="Height and width in pixels; absent takes those of the input.",
    )
    resize: Literal["center_crop", "letterbox", "stretch"] = Field(
        default="center_crop",
        description="Fill and cut the rest, fit and pad with gray 114, or change proportions.",
    )
    scale: float = Field(default=1 / 255, gt=0, description="What pixels are multiplied by.")
    mean: list[float] = Field(
        default=[0.0],
        min_length=1,
        max_length=3,
        description="Subtracted after scaling: one value, or one for each channel.",
    )
    std: list[float] = Field(
        default=[1.0],
        min_length=1,
        max_length=3,
        description="Divided by after that: one value, or one for each channel.",
    )
    layout: Literal["nchw", "nhwc"] = Field(
        default="nchw", description="Where the channels stand."
    )
    color: Literal["rgb", "bgr", "gray"] = Field(
        default="rgb", description="Order of the channels; gray has one."
    )
    dtype: Literal["float32", "float16", "float64", "uint8", "int8", "int32"] = Field(
        default="float32", description="Type of the input."
    )

    @model_validator(mode="after")
    def _fitting(self) -> "Images":
        channels = 1 if self.color == "gray" else 3
        if any(len(values) not in (1, channels) for values in (self.mean, self.std)):
            raise ValueError(f"mean and std have one value, or {channels} for {self.color}")
        if 0 in self.std:
            raise ValueError("std may not be zero")
        if self.size and not all(1 <= side <= 16_384 for side in self.size):
            raise ValueError("size is [height, width], each from 1 to 16384")
        return self


@dataclass(frozen=True)
class ImageFeeds(Sequence[Feed]):
    """Feeds of one input, a batch of pictures each."""

    archive: zipfile.ZipFile
    entries: Sequence[zipfile.ZipInfo]
    spec: InputSpec
    images: Images
    size: tuple[int, int]
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
            picture = _decode(stream, info.filename, _MODES[self.images.color])
        return _prepare(picture, self.size, self.images)


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
    feeds = ImageFeeds(archive, entries, spec, images, _size(spec, images))
    if not len(feeds):
        raise InvalidData(
            f"{len(entries)} images do not fill one batch of {spec_batch(spec)}",
            hint="send more images",
        )
    for info in entries:
        if info.file_size > _MAX_IMAGE_BYTES:
            raise _unreadable(info.filename, f"{info.file_size:,} bytes are too many")
    _check(feeds[0][spec.name], spec)
    return feeds


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


def _size(spec: InputSpec, images: Images) -> tuple[int, int]:
    if images.size is not None:
        return images.size
    last = -1 if images.layout == "nhwc" else None
    sides = spec.shape[-3:last] if last else spec.shape[-2:]
    if len(sides) != 2 or not all(isinstance(side, int) for side in sides):
        raise InvalidData(
            f"input {spec.name!r} of shape {list(spec.shape)} does not say how large images "
            "are",
            hint='set images.size to [height, width] in the recipe: {"size": [224, 224]}',
        )
    return int(sides[0] or 0), int(sides[1] or 0)


def _decode(stream: IO[bytes], name: str, mode: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of a bomb where it does not refuse it, and of odd metadata.
            warnings.simplefilter("ignore")
            picture = Image.open(stream, formats=FORMATS)
            if picture.width * picture.height > MAX_PIXELS:
                raise _unreadable(
                    name, f"{picture.width} x {picture.height} pixels are too many"
                )
            return picture.convert(mode)
    except InvalidData:
        raise
    except UnidentifiedImageError as error:
        raise _unreadable(name, f"it is none of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise _unreadable(name, str(error)[:200]) from error


def _prepare(picture: Image.Image, size: tuple[int, int], images: Images) -> np.ndarray:
    box = (size[1], size[0])
    bilinear = Image.Resampling.BILINEAR
    if images.resize == "center_crop":
        picture = ImageOps.fit(picture, box, bilinear)
    elif images.resize == "letterbox":
        gray = _LETTERBOX_GRAY if picture.mode == "L" else (_LETTERBOX_GRAY,) * 3
        picture = ImageOps.pad(picture, box, bilinear, color=gray)
    else:
        picture = picture.resize(box, bilinear)
    pixels = np.asarray(picture, np.float32).reshape(*size, -1)
    if images.color == "bgr":
        pixels = pixels[..., ::-1]
    mean, std = np.asarray(images.mean, np.float32), np.asarray(images.std, np.float32)
    values = (pixels * np.float32(images.scale) - mean) / std
    if images.layout == "nchw":
        values = values.transpose(2, 0, 1)
    return _typed(values, np.dtype(images.dtype))


def _typed(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return np.ascontiguousarray(values, dtype)
    info = np.iinfo(dtype)
    return np.ascontiguousarray(np.clip(np.rint(values), info.min, info.max)).astype(dtype)


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part)
        for part in re.split(r"(\d+)", name)
    ]


def _unreadable(name: str, reason: str) -> InvalidData:
    return InvalidData(
        f"image {name!r} cannot be used: {reason}",
        hint="send JPEG, PNG or WebP images of ordinary size",
    )
