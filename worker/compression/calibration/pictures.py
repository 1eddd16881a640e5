"""One picture: decoded with care, brought to size, and turned into numbers."""

import warnings
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from worker.compression.calibration.image_settings import Images
from worker.compression.errors import InvalidData

# Formats with decoders of their own; others start programs (EPS) or are rarely fuzzed.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 64_000_000
_MODES = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}
_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}
Box = tuple[int, int]
"""Width and height, as Pillow counts."""


def read_picture(
    stream: IO[bytes], name: str, images: Images, *, size: tuple[int, int], nhwc: bool
) -> np.ndarray:
    """Pixels as the model is fed them, without a batch axis; `size` is height and width.

    The first frame of several, upright as its EXIF data says, alpha dropped, 16 bits made 8.

    Raises:
        InvalidData: the picture is broken, too large, or of a kind that is not read.
    """
    picture = _decoded(stream, name, _MODES[images.color])
    box = (size[1], size[0])
    if images.resize == "center_crop":
        picture = _center_crop(picture, box, images, name)
    elif images.resize == "letterbox":
        picture = _letterbox(picture, box, images)
    else:
        picture = _resized(picture, box, images)
    return _numbers(picture, images, nhwc=nhwc)


def unreadable(name: str, reason: str) -> InvalidData:
    return InvalidData(
        f"image {name!r} cannot be used: {reason}",
        hint="send JPEG, PNG or WebP images of ordinary size",
    )


def _decoded(stream: IO[bytes], name: str, mode: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            # Pillow warns of a bomb where it does not refuse it, and of odd metadata.
            warnings.simplefilter("ignore")
            picture = Image.open(stream, formats=FORMATS)
            if picture.width * picture.height > MAX_PIXELS:
                raise unreadable(
                    name, f"{picture.width} x {picture.height} pixels are too many"
                )
            return ImageOps.exif_transpose(_of_8_bits(picture, name)).convert(mode)
    except InvalidData:
        raise
    except UnidentifiedImageError as error:
        raise unreadable(name, f"it is none of {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise unreadable(name, str(error)[:200]) from error


def _of_8_bits(picture: Image.Image, name: str) -> Image.Image:
    """Pillow would clip what is wider at 255: an image of 16 bits would be all white."""
    if picture.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise unreadable(name, "its pixels have 32 bits, and no range is stated")
    return picture


def _center_crop(picture: Image.Image, box: Box, images: Images, name: str) -> Image.Image:
    """Resize until both sides cover the box / `crop`, then cut (torchvision, timm)."""
    width, height = (int(side / images.crop + 1e-6) for side in box)
    if width * picture.height >= height * picture.width:
        grown = (width, max(height, width * picture.height // picture.width))
    else:
        grown = (max(width, height * picture.width // picture.height), height)
    if grown[0] * grown[1] > MAX_PIXELS:
        raise unreadable(name, f"{picture.width} x {picture.height} pixels are no picture")
    picture = _resized(picture, grown, images)
    left, top = (round((have - want) / 2) for have, want in zip(grown, box, strict=True))
    return picture.crop((left, top, left + box[0], top + box[1]))


def _letterbox(picture: Image.Image, box: Box, images: Images) -> Image.Image:
    """Resize until the picture fits, and pad both sides (Ultralytics' LetterBox)."""
    ratio = min(box[0] / picture.width, box[1] / picture.height)
    inner = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
    gray = images.pad if picture.mode == "L" else (images.pad,) * 3
    padded = Image.new(picture.mode, box, gray)
    left, top = (round((want - have) / 2 - 0.1) for have, want in zip(inner, box, strict=True))
    padded.paste(_resized(picture, inner, images), (left, top))
    return padded


def _resized(picture: Image.Image, box: Box, images: Images) -> Image.Image:
    if picture.size == box:
        return picture
    filter_ = _FILTERS[images.interpolation]
    if images.antialias or images.interpolation == "nearest":
        return picture.resize(box, filter_)
    # An affine map samples the picture at the pixels' centres, without averaging.
    across, down = picture.width / box[0], picture.height / box[1]
    return picture.transform(box, Image.Transform.AFFINE, (across, 0, 0, 0, down, 0), filter_)


def _numbers(picture: Image.Image, images: Images, *, nhwc: bool) -> np.ndarray:
    pixels = np.asarray(picture, np.float32).reshape(picture.height, picture.width, -1)
    if images.color == "bgr":
        pixels = pixels[..., ::-1]
    mean, std = np.asarray(images.mean, np.float32), np.asarray(images.std, np.float32)
    values = (pixels * np.float32(images.scale) - mean) / std
    return _typed(values if nhwc else values.transpose(2, 0, 1), np.dtype(images.dtype))


def _typed(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return np.ascontiguousarray(values, dtype)
    info = np.iinfo(dtype)
    return np.ascontiguousarray(np.clip(np.rint(values), info.min, info.max)).astype(dtype)
