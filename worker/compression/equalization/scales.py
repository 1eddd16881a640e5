"""How much to scale each channel: as finely as activations and weights can both be rounded.

Activations have one scale for all channels, the weights that make them one for each: there any
factor is free. The weights that read them have one for each of their own outputs, so a factor
that spreads the activations' small channels over more steps takes steps from the weights:
s = w^(1 - alpha) / a^alpha, with a and w the largest magnitudes (SmoothQuant, Xiao et al. 2022,
arXiv 2211.10438; at alpha = 1/2 the equal ranges of Nagel et al. 2019, arXiv 1906.04721).
"""

import numpy as np

from worker.compression.equalization.groups import Constant, Group
from worker.compression.equalization.statistics import Seen

ALPHAS = (0.25, 0.5, 0.75, 1.0)
# Below this share of the largest, a channel is scaled as if it reached it: what samples hardly
# showed may be larger elsewhere.
_LEAST = 1 / 64
# Predicted noise must fall below this share of what it is without scaling; more where a Mul is
# the price.
_WORTH, _WORTH_A_MUL = 0.9, 0.5
_ACTIVATION_STEPS, _WEIGHT_STEPS = 255, 127


def scales(group: Group, seen: Seen, alpha: float | None = None) -> np.ndarray | None:
    """Factors by channel; None where they would not lower the noise that int8 will add.

    Without `alpha`, the one of least predicted noise. The largest value of the tensors stays.
    """
    if not seen.largest.max() > 0:
        return None
    plain = np.ones(group.channels)
    wanted = ALPHAS if alpha is None else (alpha,)
    found = [_factors(group, seen, one) for one in wanted]
    noise = [_noise(group, seen, one) for one in found]
    best = int(np.argmin(noise))
    worth = _WORTH if group.makers else _WORTH_A_MUL
    return found[best] if noise[best] < worth * _noise(group, seen, plain) else None


def _factors(group: Group, seen: Seen, alpha: float) -> np.ndarray:
    largest = np.maximum(seen.largest, _LEAST * seen.largest.max())
    weight = np.max([_largest(one) for one in group.readers], axis=0)
    weight = np.maximum(weight, max(_LEAST * weight.max(), np.finfo(np.float32).tiny))
    factors = weight ** (1 - alpha) / largest**alpha
    factors *= seen.largest.max() / (factors * seen.largest).max()
    return np.asarray(factors)


def _noise(group: Group, seen: Seen, factors: np.ndarray) -> float:
    """Variance that rounding adds to the outputs of the readers, summed over them."""
    span = (factors * seen.largest).max() * (2 if seen.signed else 1)
    activations = (span / _ACTIVATION_STEPS) ** 2 / 12
    total = 0.0
    for one in group.readers:
        blocks = _blocks(one)
        parted = factors.reshape(len(blocks), 1, -1, 1)
        energy = (factors**2 * seen.energy).reshape(len(blocks), -1)
        scaled = np.abs(blocks) / parted
        steps = (scaled.max(axis=(2, 3)) / _WEIGHT_STEPS) ** 2 / 12
        total += activations * float(np.square(scaled).sum())
        total += float((steps.sum(axis=1) * energy.sum(axis=1)).sum()) * blocks.shape[3]
    return total


def _largest(one: Constant) -> np.ndarray:
    """Largest weight that reads each channel."""
    return np.asarray(np.abs(_blocks(one)).max(axis=(1, 3)).ravel())


def _blocks(one: Constant) -> np.ndarray:
    """The weight of a reader as (groups, outputs, inputs, taps)."""
    array = one.array().astype(np.float64)
    if one.node.op_type != "Conv":
        flat = array if one.axis == 1 else array.T
        return flat[None, :, :, None]
    count = one.node.attributes.get_int("group", 1)
    return array.reshape(count, array.shape[0] // count, array.shape[1], -1)
