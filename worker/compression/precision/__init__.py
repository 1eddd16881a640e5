"""Weights stored in fewer bits and given back, as floats, when the model is loaded."""

from worker.compression.precision.parameters import ROLES
from worker.compression.precision.storing import (
    Storing,
    Surroundings,
    store_halves,
    store_weights,
)

__all__ = ["ROLES", "Storing", "Surroundings", "store_halves", "store_weights"]
