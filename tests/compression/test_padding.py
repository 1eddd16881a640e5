import numpy as np
import pytest

from worker.compression.calibration import real_places

HALF = np.int64([[1, 1, 0, 0]])


@pytest.mark.parametrize(
    "feed",
    [
        {"ids": HALF, "attention_mask": HALF},
        {"attention_mask": HALF.astype(np.float32)},
        {"attention_mask": HALF.astype(bool)},
        {"key_padding_mask": 1 - HALF},
    ],
)
def test_the_mask_is_found_by_its_name_and_values(feed: dict[str, np.ndarray]) -> None:
    found = real_places(feed)
    assert found is not None
    assert found.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize(
    "feed",
    [
        {"ids": HALF},
        {"mask": np.ones((1, 4), np.int64)},
        {"mask": np.zeros((1, 4), np.int64)},
        {"mask": HALF * 7},
        {"mask": HALF[0]},
    ],
)
def test_anything_else_marks_no_padding(feed: dict[str, np.ndarray]) -> None:
    assert real_places(feed) is None
