import numpy as np
import pytest

from worker.compression.ranges.masks import mask_of, unpadded

HALF = np.int64([[1, 1, 0, 0]])


def test_the_mask_is_found_by_its_name_and_values() -> None:
    assert mask_of({"ids": HALF, "attention_mask": HALF}).tolist() == [
        [True, True, False, False]
    ]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "feed",
    [
        {"ids": HALF},
        {"mask": np.ones((1, 4), np.int64)},
        {"mask": np.zeros((1, 4), np.int64)},
        {"mask": HALF * 7},
        {"mask": HALF.astype(np.float32)},
        {"mask": HALF[0]},
    ],
)
def test_anything_else_masks_nothing(feed: dict[str, np.ndarray]) -> None:
    assert mask_of(feed) is None


def test_only_tensors_with_the_tokens_in_front_are_masked() -> None:
    mask = HALF.astype(bool)
    hidden = np.arange(8).reshape(1, 4, 2)
    assert unpadded(hidden, mask).tolist() == [[0, 1], [2, 3]]
    for other in (hidden.reshape(1, 2, 4), hidden[..., 0], hidden[0]):
        assert unpadded(other, mask) is other
