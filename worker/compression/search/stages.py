"""What is tried, and in which order: families of recipes, then repair of the promising."""

from collections.abc import Callable, Iterator, Sequence

from worker.compression.passes import AnyPass, GraphCleaning, StaticQuantization
from worker.compression.search.bench import Bench
from worker.compression.search.gains import promising
from worker.compression.search.trial import Trial, inside

Named = tuple[str, list[AnyPass]]

LAYERS_ONLY = ["Conv", "MatMul", "Gemm"]
# Families whose repair is worth its time: the fastest (or smallest) that miss the bound.
_REPAIRED = 2


def families() -> list[Named]:
    """One recipe of each kind, cheapest first, so that little time still yields something."""
    return [
        ("cleaned graph", [GraphCleaning()]),
        ("int8", [GraphCleaning(), StaticQuantization()]),
        (
            "int8, Conv, MatMul and Gemm only",
            [GraphCleaning(), StaticQuantization(ops=LAYERS_ONLY)],
        ),
    ]


def explore(bench: Bench) -> None:
    """Try everything that the time budget has room for."""
    for name, passes in families():
        bench.try_(name, passes)
    for one in promising(bench)[:_REPAIRED]:
        repaired(bench, one)


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


Change = Callable[[Sequence[AnyPass]], list[AnyPass] | None]


def repairs() -> Iterator[tuple[str, Change]]:
    """Changes of a recipe that cost accuracy nothing in speed, likeliest first."""
    yield "percentile", lambda passes: _static(passes, calibration="percentile")


def _static(passes: Sequence[AnyPass], **update: object) -> list[AnyPass] | None:
    """The recipe with other settings of its static quantization; None where it has none."""
    if not any(isinstance(one, StaticQuantization) for one in passes):
        return None
    return [
        one.model_copy(update=update) if isinstance(one, StaticQuantization) else one
        for one in passes
    ]
