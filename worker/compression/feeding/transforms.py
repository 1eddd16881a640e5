"""What people forget to do to their data, or do twice."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Fault = Literal["data_scale", "data_color_order"]
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True)
class Transform:
    """A change of the values; `remedy` says in words what it does, x being the data sent."""

    fault: Fault
    remedy: str
    apply: Callable[[np.ndarray], np.ndarray]


def transforms(channel_axis: int | None) -> list[Transform]:
    """What may fit the model better; `channel_axis` is that of three colours, if any."""
    found = [
        _scale("x / 255", lambda x: x / 255),
        _scale("x * 255", lambda x: x * 255),
        _scale("x / 127.5 - 1", lambda x: x / 127.5 - 1),
        _scale("(x + 1) * 127.5", lambda x: (x + 1) * 127.5),
        _scale("x / 127.5", lambda x: x / 127.5),
        _scale("x * 127.5", lambda x: x * 127.5),
        _scale("x * 2 - 1", lambda x: x * 2 - 1),
        _scale("(x + 1) / 2", lambda x: (x + 1) / 2),
        _scale("x / 32768", lambda x: x / 32768),
        _scale("x * 32768", lambda x: x * 32768),
    ]
    if channel_axis is None:
        return found
    shape = [3 if axis == channel_axis else 1 for axis in range(4)]
    mean, std = _MEAN.reshape(shape), _STD.reshape(shape)
    return [
        *found,
        _scale("(x - mean) / std", lambda x: (x - mean) / std),
        _scale("(x / 255 - mean) / std", lambda x: (x / 255 - mean) / std),
        _scale("x * std + mean", lambda x: x * std + mean),
        _scale("(x * std + mean) * 255", lambda x: (x * std + mean) * 255),
        Transform(
            "data_color_order",
            "swap red and blue",
            lambda x: np.flip(x, channel_axis),
        ),
    ]


def _scale(remedy: str, apply: Callable[[np.ndarray], np.ndarray]) -> Transform:
    return Transform("data_scale", remedy, apply)
