"""What is tried, and in which order: families of recipes, then repair of the promising."""

from collections.abc import Callable, Iterator, Sequence

from worker.compression.passes import (
    AnyPass,
    ChannelPruning,
    GraphCleaning,
    HalfPrecision,
    StaticQuantization,
    WeightQuantization,
)
from worker.compression.search.bench import Bench, by_bytes
from worker.compression.search.gains import promising
from worker.compression.search.mixed import keep_worst_float
from worker.compression.search.trial import Trial, inside

Named = tuple[str, list[AnyPass]]
Change = Callable[[Sequence[AnyPass]], list[AnyPass] | None]

LAYERS_ONLY = ["Conv", "MatMul", "Gemm"]
# Families whose repair is worth its time: the fastest (or smallest) that miss the bound.
_REPAIRED = 3
# Shares of the multiplications that channel pruning takes out, one after the other.
_AMOUNTS = (0.1, 0.2, 0.3, 0.5)


def families() -> Iterator[Named]:
    """One recipe of each kind, cheapest first, so that little time still yields something."""
    yield "cleaned graph", [GraphCleaning()]
    yield "int8", [GraphCleaning(), StaticQuantization()]
    layers_only = StaticQuantization(ops=LAYERS_ONLY)
    yield "int8, Conv, MatMul and Gemm only", [GraphCleaning(), layers_only]
    yield "weights in 8 bits", [GraphCleaning(), WeightQuantization()]
    yield "weights in half precision", [GraphCleaning(), HalfPrecision()]


def explore(bench: Bench) -> None:
    """Try everything that the time budget has room for."""
    for name, passes in families():
        bench.try_(name, passes)
    if by_bytes(bench.subject):
        squeeze(bench)
    for one in promising(bench)[:_REPAIRED]:
        keep_worst_float(bench, repaired(bench, one))
    prune(bench)


def squeeze(bench: Bench) -> None:
    """Fewer bits for weights than speed has a use for."""
    rest = WeightQuantization()
    for name, passes in list(families())[1:3]:
        bench.try_(f"{name}, other weights in 8 bits", [*passes, rest])
    for bits, sqnr in ((4, 25.0), (8, 40.0)):
        stored = WeightQuantization(bits=bits, min_sqnr_db=sqnr)
        bench.try_(f"weights in {bits} bits, {sqnr:.0f} dB", [GraphCleaning(), stored])


def repaired(bench: Bench, one: Trial) -> Trial:
    """The trial with each repair that brings it closer to the original, until it is inside."""
    for name, change in repairs():
        if inside(one, bench.goal):
            break
        changed = change(one.passes)
        if changed is None:
            continue
        other = bench.try_(f"{one.name}, {name}", changed)
        if other.measured and other.bound_used(bench.goal) < one.bound_used(bench.goal):
            one = other
    return one


def repairs() -> Iterator[tuple[str, Change]]:
    """Changes of a recipe that cost no speed, likeliest first."""
    yield "gptq rounding", lambda passes: _static(passes, rounding="gptq")
    yield "mse ranges", lambda passes: _static(passes, calibration="mse")
    yield "percentile ranges", lambda passes: _static(passes, calibration="percentile")


def _static(passes: Sequence[AnyPass], **update: object) -> list[AnyPass] | None:
    """The recipe with other settings of its static quantization; None where it has none."""
    if not any(isinstance(one, StaticQuantization) for one in passes):
        return None
    return [
        one.model_copy(update=update) if isinstance(one, StaticQuantization) else one
        for one in passes
    ]


def prune(bench: Bench) -> None:
    """Fewer channels before the best recipe so far, more and more while it stays inside."""
    base = bench.best()
    passes = list(base.passes) if base else [GraphCleaning()]
    for amount in _AMOUNTS:
        pruning = ChannelPruning(amount=amount)
        at = 1 if isinstance(passes[0], GraphCleaning) else 0
        name = f"{base.name if base else 'float'}, {100 * amount:.0f} % of the MACs pruned"
        pruned = bench.try_(name, [*passes[:at], pruning, *passes[at:]])
        if not pruned.measured or not inside(pruned, bench.goal):
            break
