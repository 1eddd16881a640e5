"""Mixed precision: as few layers float as the bound asks for, found by bisection."""

from collections.abc import Sequence

from worker.compression.passes import AnyPass, StaticQuantization
from worker.compression.search.bench import Bench
from worker.compression.search.gains import gain
from worker.compression.search.ranking import worst_layers
from worker.compression.search.trial import Trial, inside

# Above this share of layers in float, little of the gain is left.
_MOST_FLOAT = 0.6


def keep_worst_float(bench: Bench, one: Trial) -> Trial:
    """The trial with the fewest of its worst layers kept float that bring it inside.

    More float layers lose less, which makes bisection over their number right; where that does
    not hold, what is found is still measured, only maybe not the fewest.
    """
    if not one.measured or inside(one, bench.goal):
        return one
    worst = worst_layers(bench, one)
    most = round(_MOST_FLOAT * len(worst))
    failed, count = 0, 1
    # Few first: the loss often sits in one or two layers, and these candidates are the fastest.
    while count <= most:
        found = _with_float(bench, one, worst[:count])
        if inside(found, bench.goal):
            return _fewest(bench, one, worst, (failed, count), found)
        if not found.measured or gain(bench, found) < 1:
            break
        failed, count = count, 2 * count
    return one


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
