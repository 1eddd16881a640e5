"""Representative inputs, read lazily: memory does not grow with their number."""

from worker.compression.calibration.batches import by_rows
from worker.compression.calibration.image_settings import IMAGE_PRESETS, Images
from worker.compression.calibration.images import is_nhwc
from worker.compression.calibration.opening import open_samples
from worker.compression.calibration.padding import real_places
from worker.compression.calibration.samples import CalibrationSet, Feed, Source, rows
from worker.compression.calibration.sequences import State, carried, states
from worker.compression.calibration.splitting import ENOUGH, Split, split
from worker.compression.calibration.storage import ArrayFile, StoredArray
from worker.compression.calibration.synthesis import synthetic

__all__ = [
    "ENOUGH",
    "IMAGE_PRESETS",
    "ArrayFile",
    "CalibrationSet",
    "Feed",
    "Images",
    "Source",
    "Split",
    "State",
    "StoredArray",
    "by_rows",
    "carried",
    "is_nhwc",
    "open_samples",
    "real_places",
    "rows",
    "split",
    "states",
    "synthetic",
]
