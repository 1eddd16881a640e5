"""How to load the result: Python with the session options, the preprocessing and the states."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from worker.compression.calibration import Images, is_nhwc
from worker.compression.graph import InputSpec
from worker.compression.passes import Target

_FILTERS = {"bilinear": "BILINEAR", "bicubic": "BICUBIC", "nearest": "NEAREST"}


def snippet(
    target: Target,
    feed: Mapping[str, np.ndarray],
    *,
    images: Images | None = None,
    states: Mapping[str, str] | None = None,
) -> str:
    """Python that runs the result as it was timed; it needs nothing but the model beside it.

    `feed` is one sample. `images` becomes a function for one picture; `states` names the output
    that feeds an input next, and becomes a loop over a sequence.
    """
    pictured = images is not None and len(feed) == 1
    parts = [_imports(pictured=pictured), _session(target)]
    if images is not None and pictured:
        (name, value), *_ = feed.items()
        parts += [_prepare(name, value, images), _picture(name, value)]
    else:
        parts.append(_zeros(feed))
    parts.append(_loop(states) if states else _once())
    return "\n".join(parts)


def fed_back(inputs: Mapping[str, Any] | None) -> dict[str, str]:
    """Inputs that an output feeds in the next step of a sequence, each with that output."""
    return {
        name: given["from_output"]
        for name, given in (inputs or {}).items()
        if given.get("from_output")
    }


def _imports(*, pictured: bool) -> str:
    pillow = "from PIL import Image, ImageOps\n" if pictured else ""
    return f"import numpy as np\nimport onnxruntime as ort\n{pillow}"


def _session(target: Target) -> str:
    return f"""options = ort.SessionOptions()
options.intra_op_num_threads = {target.threads}
# On x86 without VNNI int8 kernels saturate: this takes the exact ones there, and only there.
options.add_session_config_entry("session.x64quantprecision", "1")
session = ort.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
"""


def _zeros(feed: Mapping[str, np.ndarray]) -> str:
    shapes = json.dumps({name: [list(x.shape), str(x.dtype)] for name, x in feed.items()})
    return f"""shapes = {shapes}
feed = {{name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}}
"""


def _once() -> str:
    return "print([np.shape(output) for output in session.run(None, feed)])\n"


def _loop(states: Mapping[str, str]) -> str:
    return f"""names = [output.name for output in session.get_outputs()]
states = {json.dumps(dict(states))}  # the output that feeds an input next
for step in range(3):  # a sequence: your samples, in order
    outputs = dict(zip(names, session.run(names, feed)))
    feed.update({{name: outputs[output] for name, output in states.items()}})
print([np.shape(output) for output in outputs.values()])
"""


def _picture(name: str, value: np.ndarray) -> str:
    batch = f"np.stack([prepare(picture)] * {len(value)})" if value.ndim == 4 else ""
    return f"""picture = Image.new("RGB", (640, 480))  # yours: Image.open("photo.jpg")
feed = {{{json.dumps(name)}: {batch or "prepare(picture)"}}}
"""


def _prepare(name: str, value: np.ndarray, images: Images) -> str:
    """One picture as the samples were made of theirs, line by line what pictures.py does."""
    nhwc = is_nhwc(InputSpec(name, value.dtype, value.shape), images)
    height, width = value.shape[-3:-1] if nhwc else value.shape[-2:]
    mode = "L" if images.color == "gray" else "RGB"
    lines = [
        f'picture = ImageOps.exif_transpose(picture).convert("{mode}")',
        *_sized(images, width, height, mode),
        "pixels = np.asarray(picture, np.float32).reshape(picture.height, picture.width, -1)",
        *(["pixels = pixels[..., ::-1]  # RGB to BGR"] if images.color == "bgr" else []),
        f"values = pixels * np.float32({images.scale!r})",
        f"values = (values - np.float32({images.mean})) / np.float32({images.std})",
        *_typed(images.dtype),
        "return values" if nhwc else "return values.transpose(2, 0, 1)",
    ]
    body = "\n".join(f"    {line}" for line in lines)
    return f"{_resize(images)}\ndef prepare(picture):\n{body}\n\n"


def _typed(dtype: str) -> list[str]:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return [f"values = values.astype(np.{dtype})"]
    info = np.iinfo(kind)
    return [f"values = np.clip(np.rint(values), {info.min}, {info.max}).astype(np.{dtype})"]


def _resize(images: Images) -> str:
    filter_ = f"Image.Resampling.{_FILTERS[images.interpolation]}"
    if images.antialias or images.interpolation == "nearest":
        return f"def resized(picture, size):\n    return picture.resize(size, {filter_})\n\n"
    return f"""def resized(picture, size):
    across, down = picture.width / size[0], picture.height / size[1]
    affine = (across, 0, 0, 0, down, 0)
    return picture.transform(size, Image.Transform.AFFINE, affine, {filter_})

"""


def _sized(images: Images, width: int, height: int, mode: str) -> list[str]:
    if images.resize == "stretch":
        return [f"picture = resized(picture, ({width}, {height}))"]
    if images.resize == "letterbox":
        color = images.pad if mode == "L" else (images.pad,) * 3
        return [
            f"ratio = min({width} / picture.width, {height} / picture.height)",
            "size = [max(1, round(side * ratio)) for side in picture.size]",
            f'padded = Image.new("{mode}", ({width}, {height}), {color})',
            f"place = (round(({width} - size[0]) / 2 - 0.1), "
            f"round(({height} - size[1]) / 2 - 0.1))",
            "padded.paste(resized(picture, size), place)",
            "picture = padded",
        ]
    wide, high = (int(side / images.crop + 1e-6) for side in (width, height))
    return [
        f"size = (max({wide}, {high} * picture.width // picture.height), "
        f"max({high}, {wide} * picture.height // picture.width))",
        "picture = resized(picture, size)",
        f"left, top = round((size[0] - {width}) / 2), round((size[1] - {height}) / 2)",
        f"picture = picture.crop((left, top, left + {width}, top + {height}))",
    ]
