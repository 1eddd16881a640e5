"""The same function in fewer nodes, proved on real inputs step by step."""

from worker.compression.cleaning.cleaner import Cleaning, clean
from worker.compression.cleaning.steps import (
    batch_norm_folded,
    constants_lifted,
    interface_restored,
    opset_raised,
    shapes_inferred,
)

__all__ = [
    "Cleaning",
    "batch_norm_folded",
    "clean",
    "constants_lifted",
    "interface_restored",
    "opset_raised",
    "shapes_inferred",
]
