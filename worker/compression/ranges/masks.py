"""Padding, where the data itself says which tokens are some."""

from collections.abc import Mapping

import numpy as np


def mask_of(feed: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Which tokens of a sample are real, (batch, tokens); None where none is padding.

    An input counts as the mask if it is called one and holds nothing but 0 and 1.
    """
    for name, array in feed.items():
        if "mask" not in name.lower() or array.ndim != 2 or array.dtype.kind not in "iub":
            continue
        mask = array.astype(bool)
        if (mask == array).all() and mask.any() and not mask.all():
            return mask
    return None


def unpadded(array: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The values at real tokens of a tensor (batch, tokens, ...); any other tensor as it is."""
    if mask is None or array.ndim < 3 or array.shape[:2] != mask.shape:
        return array
    return np.asarray(array[mask])
