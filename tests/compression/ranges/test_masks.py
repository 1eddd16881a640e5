import numpy as np

from worker.compression.ranges.masks import unpadded

HALF = np.array([[True, True, False, False]])


def test_only_tensors_with_the_tokens_in_front_are_masked() -> None:
    hidden = np.arange(8).reshape(1, 4, 2)
    assert unpadded(hidden, HALF).tolist() == [[0, 1], [2, 3]]
    for other in (hidden.reshape(1, 2, 4), hidden[..., 0], hidden[0]):
        assert unpadded(other, HALF) is other
