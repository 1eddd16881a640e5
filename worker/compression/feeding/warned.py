"""What is said of data that does not fit."""

import warnings

import numpy as np

from worker.compression.calibration import CalibrationSet
from worker.compression.errors import CompressionWarning

_FEW_LABELS = 16


def warn_scale(name: str, remedy: str) -> None:
    _say(
        CompressionWarning(
            f"the values of {name!r} are not of the scale that the model was trained on: "
            f"{remedy} fits it much better, x being what was sent",
            code="data_scale",
        )
    )


def warn_color_order(name: str) -> None:
    _say(
        CompressionWarning(
            f"red and blue of {name!r} seem to be swapped: the model fits the data better in "
            "the other order (RGB for BGR, or the reverse)",
            code="data_color_order",
        )
    )


def warn_unlike(name: str) -> None:
    _say(
        CompressionWarning(
            f"the values of {name!r} are unlike those that the model was trained on, and no "
            "usual scaling mends it: check the preprocessing",
            code="data_unlike_training",
        )
    )


def warn_layout(name: str, axis: int, times: float) -> None:
    """`axis` is where the model wants the colours; `times` how much better rows fit else."""
    wants, has = ("NCHW", "NHWC") if axis == 1 else ("NHWC", "NCHW")
    order = "0, 3, 1, 2" if axis == 1 else "0, 2, 3, 1"
    _say(
        CompressionWarning(
            f"{name!r} has the shape of {wants}, but its values lie in memory as {has} "
            f"(neighbouring rows fit {times:.1f} times better that way): "
            f"use transpose({order}), not reshape",
            code="data_layout",
        )
    )


def warn_labels(samples: CalibrationSet) -> None:
    """Where all labels are one class, accuracy says nothing."""
    if samples.labels is None or len(samples) < _FEW_LABELS:
        return
    labels = [samples.labels[index] for index in range(len(samples))]
    if any(label.dtype.kind not in "iu" or label.size != 1 for label in labels):
        return
    values = np.unique([int(label.reshape(-1)[0]) for label in labels])
    if len(values) == 1:
        _say(
            CompressionWarning(
                f"all {len(labels)} labels are {values[0]}: accuracy on one class says little",
                code="constant_labels",
            )
        )


def _say(warning: CompressionWarning) -> None:
    warnings.warn(warning, stacklevel=3)
