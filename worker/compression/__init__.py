"""Compress a trained model, and prove what was kept. The library's front door."""

from worker.compression.calibration import Images
from worker.compression.compress import compress
from worker.compression.errors import (
    CompressionError,
    CompressionWarning,
    InvalidData,
    InvalidModel,
    InvalidRecipe,
    LabelsMismatch,
    MissingInputs,
    PassFailed,
    StatefulModule,
    UnsupportedFormat,
)
from worker.compression.fidelity import OwnMetric
from worker.compression.inspection import Inspection, inspect
from worker.compression.recipe import PRESETS, Goal, Recipe
from worker.compression.report import Report

__all__ = [
    "PRESETS",
    "CompressionError",
    "CompressionWarning",
    "Goal",
    "Images",
    "Inspection",
    "InvalidData",
    "InvalidModel",
    "InvalidRecipe",
    "LabelsMismatch",
    "MissingInputs",
    "OwnMetric",
    "PassFailed",
    "Recipe",
    "Report",
    "StatefulModule",
    "UnsupportedFormat",
    "compress",
    "inspect",
]
