"""What is tried, and in which order: families of recipes, then repair of the promising."""

from collections.abc import Iterator, Sequence

from worker.compression.passes import (
    AnyPass,
    ChannelPruning,
    Compaction,
    CrossLayerEqualization,
    DynamicQuantization,
    GraphCleaning,
    HalfPrecision,
    RuntimeFusion,
    SmoothQuantization,
    StaticQuantization,
    WeightQuantization,
)
from worker.compression.recipe import STATIC_WEIGHTS
from worker.compression.search.bench import Bench, by_bytes
from worker.compression.search.gains import promising
from worker.compression.search.mixed import keep_worst_float
from worker.compression.search.ranking import LAYERS_ONLY
from worker.compression.search.trial import Trial, inside

Named = tuple[str, list[AnyPass]]
Repair = tuple[str, tuple[AnyPass, ...], dict[str, object]]
"""Its name, passes before static quantization, and settings of that."""

# Families whose repair is worth its time: the fastest (or smallest) that miss the bound.
_REPAIRED = 3
# What costs no speed: passes before static quantization, and its settings. All together first,
# which does most where much is lost; one that is inside the bound ends the repair.
_EQUALIZED: tuple[AnyPass, ...] = (CrossLayerEqualization(), SmoothQuantization())
_REPAIRS: tuple[Repair, ...] = (
    (
        "equalized, gptq rounding, mse ranges, biases corrected",
        _EQUALIZED,
        {"rounding": "gptq", "calibration": "mse", "bias_correction": True},
    ),
    ("gptq rounding", (), {"rounding": "gptq"}),
    ("mse ranges", (), {"calibration": "mse"}),
    ("biases corrected", (), {"bias_correction": True}),
    ("gptq rounding, mse ranges", (), {"rounding": "gptq", "calibration": "mse"}),
    ("percentile ranges", (), {"calibration": "percentile"}),
)
# SQNR in dB of the outputs up to which weights are stored in fewer bits, smallest file first.
_STORED_AT = (25.0, 32.0, 40.0)
# Files whose names are shortened: the smallest may turn out to be slower.
_PACKED = 2
# Shares of the multiplications that channel pruning takes out, one after the other.
_AMOUNTS = (0.05, 0.1, 0.2, 0.3, 0.5)


def families() -> Iterator[Named]:
    """One recipe of each kind, cheapest first, so that little time still yields something."""
    yield "cleaned graph", [GraphCleaning()]
    yield "int8", [GraphCleaning(), StaticQuantization()]
    layers_only = StaticQuantization(ops=list(LAYERS_ONLY))
    yield "int8, Conv, MatMul and Gemm only", [GraphCleaning(), layers_only]
    yield "int8, scales found as it runs", [GraphCleaning(), DynamicQuantization()]
    yield "weights in 8 bits", [GraphCleaning(), WeightQuantization()]
    yield "weights in half precision", [GraphCleaning(), HalfPrecision()]


def explore(bench: Bench) -> None:
    """Try everything that the time budget has room for."""
    for name, passes in families():
        bench.try_(name, passes)
    if by_bytes(bench.subject):
        squeeze(bench)
        # Names may be most of a small file: what is sure to be smaller comes before repairs.
        pack(bench)
    repairs: Sequence[Repair] = _REPAIRS
    for one in promising(bench)[:_REPAIRED]:
        best, repairs = repaired(bench, one, repairs)
        keep_worst_float(bench, best)
    prune(bench)
    if by_bytes(bench.subject):
        pack(bench)
    else:
        fuse(bench)


def squeeze(bench: Bench) -> None:
    """Fewer bits for weights than speed has a use for."""
    rest = WeightQuantization()
    for name, passes in list(families())[1:3]:
        bench.try_(f"{name}, other weights in 8 bits", [*passes, rest])
    # Weights first: behind activations that are scaled as they come, every change looks large.
    others = WeightQuantization(ops=STATIC_WEIGHTS)
    dynamic: list[AnyPass] = [GraphCleaning(), others, DynamicQuantization()]
    bench.try_("int8, scales found as it runs, other weights in 8 bits", dynamic)
    for bits in (4, 8):
        for sqnr in _STORED_AT:
            stored = WeightQuantization.model_validate({"bits": bits, "min_sqnr_db": sqnr})
            name = f"weights in {bits} bits, {sqnr:.0f} dB"
            if inside(bench.try_(name, [GraphCleaning(), stored]), bench.goal):
                break


def fuse(bench: Bench) -> None:
    """The best so far, or the upload, as ONNX Runtime fuses it: for ONNX Runtime only."""
    base = bench.best()
    passes = list(base.passes) if base else [GraphCleaning()]
    name = base.name if base else "cleaned graph"
    bench.try_(f"{name}, fused by ONNX Runtime (ORT-only)", [*passes, RuntimeFusion()])


def pack(bench: Bench) -> None:
    """Shorter names in the smallest that are inside, whether or not they are small enough."""
    kept = [
        one
        for one in bench.trials
        if one.measured and inside(one, bench.goal) and not _packed(one.passes)
    ]
    for one in sorted(kept, key=lambda one: one.bytes or 0)[:_PACKED]:
        bench.try_(f"{one.name}, packed", [*one.passes, Compaction()])


def _packed(passes: Sequence[AnyPass]) -> bool:
    return any(isinstance(one, Compaction) for one in passes)


def repaired(bench: Bench, one: Trial, repairs: Sequence[Repair]) -> tuple[Trial, list[Repair]]:
    """The closest to the original of the trial and its repairs, or the first that is inside.

    After all of them together each is tried by itself: rounding by what layers read helps one
    model by 7 dB and costs another 1, and so do ranges. With it comes the repair that did most,
    which is the one to try where other operators are quantized.
    """
    best, helped = one, list[Repair]()
    for repair in repairs:
        if inside(best, bench.goal):
            break
        name, before, update = repair
        changed = _static(one.passes, before, **update)
        if changed is None:
            return one, list(repairs)
        other = bench.try_(f"{one.name}, {name}", changed)
        if other.measured and other.bound_used(bench.goal) < best.bound_used(bench.goal):
            best, helped = other, [repair]
    return best, helped


def _static(
    passes: Sequence[AnyPass], before: Sequence[AnyPass], **update: object
) -> list[AnyPass] | None:
    """The recipe with other settings of its static quantization, and passes before it.

    None where it has no static quantization.
    """
    changed: list[AnyPass] = []
    for one in passes:
        if isinstance(one, StaticQuantization):
            changed += [*before, one.model_copy(update=update)]
        else:
            changed.append(one)
    return changed if any(isinstance(one, StaticQuantization) for one in passes) else None


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
