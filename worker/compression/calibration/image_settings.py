"""How a picture becomes an input: settings, and presets of them by name."""

from types import MappingProxyType
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Preset = Literal[
    "imagenet", "imagenet-tf", "imagenet-caffe", "keras-0-255", "yolo", "clip", "gray", "mnist"
]

_TORCHVISION: dict[str, Any] = {"resize": "center_crop", "crop": 0.875}
_TENSORFLOW: dict[str, Any] = {"resize": "stretch", "antialias": False}

IMAGE_PRESETS: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {
        # torchvision and timm: shorter side to 256, the middle 224 of it
        "imagenet": _TORCHVISION
        | {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        # keras.applications, mode "tf", and timm's inception constants: -1 to 1
        "imagenet-tf": _TORCHVISION | {"mean": [0.5], "std": [0.5]},
        # keras.applications, mode "caffe": BGR, 0 to 255 less the mean
        "imagenet-caffe": _TENSORFLOW
        | {"scale": 1.0, "mean": [103.939, 116.779, 123.68], "color": "bgr"},
        # Keras models that rescale themselves, such as EfficientNet
        "keras-0-255": _TENSORFLOW | {"scale": 1.0},
        # Ultralytics: LetterBox, OpenCV's bilinear, 0 to 1
        "yolo": {"resize": "letterbox", "antialias": False},
        # OpenAI's CLIP
        "clip": {
            "interpolation": "bicubic",
            "mean": [0.48145466, 0.4578275, 0.40821073],
            "std": [0.26862954, 0.26130258, 0.27577711],
        },
        "gray": {"resize": "stretch", "color": "gray"},
        # PyTorch's example
        "mnist": {"resize": "stretch", "color": "gray", "mean": [0.1307], "std": [0.3081]},
    }
)
PRESET_SIZES: MappingProxyType[str, tuple[int, int]] = MappingProxyType(
    {
        "imagenet": (224, 224),
        "imagenet-tf": (224, 224),
        "imagenet-caffe": (224, 224),
        "keras-0-255": (224, 224),
        "yolo": (640, 640),
        "clip": (224, 224),
        "mnist": (28, 28),
    }
)
"""Sizes for models whose input does not state its own."""


class Images(BaseModel):
    """How a picture becomes an input: (pixel * scale - mean) / std, pixels from 0 to 255."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    preset: Preset | None = Field(
        default=None, description="Settings by name; those given beside it override its own."
    )
    size: tuple[int, int] | None = Field(
        default=None,
        description="Height and width in pixels; absent takes those of the input.",
    )
    resize: Literal["center_crop", "letterbox", "stretch"] = Field(
        default="center_crop",
        description="Fill and cut the rest, fit and pad, or change proportions.",
    )
    crop: float = Field(
        default=1.0,
        gt=0.1,
        le=1,
        description="Share of the shorter side that center_crop keeps: 0.875 is 224 of 256.",
    )
    pad: int = Field(default=114, ge=0, le=255, description="Gray level of letterbox's bars.")
    interpolation: Literal["bilinear", "bicubic", "nearest"] = Field(
        default="bilinear", description="How pixels are computed when the size changes."
    )
    antialias: bool = Field(
        default=True,
        description="Average where an image shrinks, as Pillow does; OpenCV does not.",
    )
    scale: float = Field(default=1 / 255, gt=0, description="What pixels are multiplied by.")
    mean: list[float] = Field(
        default=[0.0],
        min_length=1,
        max_length=3,
        description="Subtracted after scaling: one value, or one for each channel as fed.",
    )
    std: list[float] = Field(
        default=[1.0],
        min_length=1,
        max_length=3,
        description="Divided by after that: one value, or one for each channel as fed.",
    )
    layout: Literal["auto", "nchw", "nhwc"] = Field(
        default="auto",
        description="Where the channels stand; auto asks the input's shape, else nchw.",
    )
    color: Literal["rgb", "bgr", "gray"] = Field(
        default="rgb", description="Order of the channels; gray has one."
    )
    dtype: Literal["float32", "float16", "float64", "uint8", "int8", "int32"] = Field(
        default="float32", description="Type of the input."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, given: Any) -> Any:  # noqa: ANN401 - raw user input
        """A preset's name alone, or an object that names one, with the preset's settings."""
        if isinstance(given, str):
            given = {"preset": given}
        if not isinstance(given, dict):
            return given
        preset = given.get("preset")
        known = IMAGE_PRESETS.get(preset, {}) if isinstance(preset, str) else {}
        return {**known, **given}

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
