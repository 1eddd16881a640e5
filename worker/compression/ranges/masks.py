"""Values at padding are not observed."""

import numpy as np


def unpadded(array: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The values at real tokens of a tensor (batch, tokens, ...); any other tensor as it is."""
    if mask is None or not mask.any() or array.ndim < 3 or array.shape[:2] != mask.shape:
        return array
    return np.asarray(array[mask])
