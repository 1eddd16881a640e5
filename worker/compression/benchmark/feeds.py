"""What is fed when a model is timed."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from worker.compression.calibration import CalibrationSet, Feed
from worker.compression.errors import InvalidData


def timed_feeds(
    samples: CalibrationSet, shapes: Sequence[Mapping[str, list[int]]]
) -> list[Feed]:
    """A feed for each of the input shapes to time, else of the commonest and the largest.

    Raises:
        InvalidData: a shape is of an input that the model does not have.
    """
    if shapes:
        return [_resized(samples[0], one) for one in shapes]
    found = [_shapes(samples[i]) for i in range(min(len(samples), 64))]
    common = Counter(found).most_common(1)[0][0]
    largest = max(found, key=lambda shape: sum(int(np.prod(dims)) for _, dims in shape))
    chosen = dict.fromkeys([common, largest])
    return [samples[found.index(shape)] for shape in chosen]


def _shapes(feed: Feed) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, value.shape) for name, value in feed.items())


def _resized(feed: Feed, shapes: Mapping[str, list[int]]) -> Feed:
    """The feed with its values repeated or cut to the shapes asked for."""
    unknown = sorted(set(shapes) - set(feed))
    if unknown:
        raise InvalidData(
            f"target.shapes names {', '.join(unknown)}, which is no input of the model",
            hint=f"its inputs are {', '.join(feed)}",
        )
    return {
        name: np.resize(value, shapes[name]) if name in shapes else value
        for name, value in feed.items()
    }
