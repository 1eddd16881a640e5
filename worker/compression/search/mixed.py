"""Mixed precision: as few layers float as the bound asks for, found by bisection."""

from collections.abc import Mapping, Sequence

import numpy as np

from worker.compression.passes import AnyPass, StaticQuantization
from worker.compression.search.bench import Bench
from worker.compression.search.gains import gain
from worker.compression.search.ranking import worst_layers
from worker.compression.search.trial import Trial, inside

# Above this share of layers in float, little of the gain is left.
_MOST_FLOAT = 0.75


def keep_worst_float(bench: Bench, one: Trial) -> Trial:
    """The trial with the fewest of its worst layers kept float that bring it inside.

    More float layers lose less, which makes bisection over their number right; where that does
    not hold, what is found is still measured, only maybe not the fewest.
    """
    if not one.measured or inside(one, bench.goal):
        return one
    shares = worst_layers(bench, one)
    worst = list(shares)
    most = round(_MOST_FLOAT * len(worst))
    failed, count = 0, min(_needed(one.bound_used(bench.goal), shares), most)
    while count > failed:
        found = _with_float(bench, one, worst[:count])
        if inside(found, bench.goal):
            return _fewest(bench, one, worst, (failed, count), found)
        if not found.measured or gain(bench, found) < 1:
            break
        failed, count = count, min(2 * count, most)
    return one


def _needed(used: float, shares: Mapping[str, float]) -> int:
    """How many layers must be float by the sum of the errors that are left; at least one.

    What is used of a bound grows with the error's root.
    """
    left = np.cumsum(list(shares.values())[::-1])[::-1]
    return max(1, int(np.count_nonzero(left > 1 / used**2)))


def _fewest(
    bench: Bench, one: Trial, worst: Sequence[str], between: tuple[int, int], found: Trial
) -> Trial:
    """Bisect the number of float layers between one that failed and one that did not."""
    failed, count = between
    while count - failed > 1:
        middle = (failed + count) // 2
        other = _with_float(bench, one, worst[:middle])
        if inside(other, bench.goal):
            count, found = middle, other
        else:
            failed = middle
    return found


def _with_float(bench: Bench, one: Trial, layers: Sequence[str]) -> Trial:
    passes = [_keeping(pass_, layers) for pass_ in one.passes]
    plural = "s" if len(layers) > 1 else ""
    return bench.try_(f"{one.name}, {len(layers)} layer{plural} kept float", passes)


def _keeping(pass_: AnyPass, layers: Sequence[str]) -> AnyPass:
    if not isinstance(pass_, StaticQuantization):
        return pass_
    return pass_.model_copy(update={"keep_float": [*pass_.keep_float, *layers]})
