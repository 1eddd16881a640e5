"""What the test graphs are made of."""

import numpy as np

from tests.models import normal

Feed = dict[str, np.ndarray]
PADDED = "pads = [1, 1, 1, 1]"


def image(seed: int = 0, *, channels: int = 3, side: int = 8) -> Feed:
    return {"x": normal(1, channels, side, side, seed=seed)}


def conv(name: str, outputs: int, inputs: int, side: int = 3) -> dict[str, np.ndarray]:
    """Weight and bias of a convolution."""
    seed = sum(name.encode())
    scale = (2 / (inputs * side * side)) ** 0.5
    return {
        f"{name}.weight": normal(outputs, inputs, side, side, seed=seed, scale=scale),
        f"{name}.bias": normal(outputs, seed=seed + 1, scale=0.1),
    }


def linear(name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
    seed = sum(name.encode())
    return {
        f"{name}.weight": normal(inputs, outputs, seed=seed, scale=inputs**-0.5),
        f"{name}.bias": normal(outputs, seed=seed + 1, scale=0.1),
    }


def sequence(seed: int = 0, *, length: int = 7, batch: int = 2, width: int = 32) -> Feed:
    return {"x": normal(batch, length, width, seed=seed)}


def steps(seed: int = 0) -> Feed:
    return {"x": normal(9, 2, 6, seed=seed)}
