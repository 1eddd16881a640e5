"""Padding, where the data itself says which places are some."""

from collections.abc import Mapping

import numpy as np


def real_places(feed: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Which places of a sample are real, (batch, places); None where none is padding.

    An input counts as the mask if it is called one and holds nothing but 0 and 1. One that is
    called a padding mask marks padding by 1, as PyTorch's `key_padding_mask` does. A mask that
    leaves no place is none: rather all places are judged than, in silence, nothing.
    """
    for name, array in feed.items():
        if "mask" not in name.lower() or array.ndim != 2 or array.dtype.kind not in "iubf":
            continue
        mask = array.astype(bool)
        if not (mask == array).all():
            continue
        real: np.ndarray = ~mask if "pad" in name.lower() else mask
        return real if real.any() and not real.all() else None
    return None
