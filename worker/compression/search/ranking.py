"""Which layers of a candidate to give back to float first."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from worker.compression import graph
from worker.compression.benchmark import profile
from worker.compression.errors import CompressionError
from worker.compression.fidelity import error_power
from worker.compression.layers import errors
from worker.compression.passes import StaticQuantization
from worker.compression.pipeline import run_passes
from worker.compression.search.bench import Bench
from worker.compression.search.trial import Trial

LAYERS_ONLY = ("Conv", "MatMul", "Gemm")
# Share of one inference that giving back even the smallest layer costs: conversions beside it.
_BORDER = 0.02
# Calibration samples on which a layer shows its effect.
_SAMPLES = 8
# Share of the time left that all layers together may take to show it.
_AFFORDABLE = 1 / 3


def worst_layers(bench: Bench, one: Trial) -> dict[str, float]:
    """Quantized layers, by error at the outputs for each millisecond, worst first.

    Each with its share of the error power of all.

    The effect of a layer is measured on the outputs, with this layer alone quantized: an error
    early in the model may grow or drown on its way, and what two neighbours share is no error
    of either until both are float. Where time does not allow that, the layers' own errors stand
    in, which come from one pass for all layers at once.
    """
    at = _quantized_at(one)
    if at is None or bench.spent():
        return {}
    source = one.made[at - 1].path if at else bench.subject.original
    bench.tell(f"looking for the layers that spoil {one.name}")
    try:
        own = errors(source, one.made[at].path, bench.subject.split.calibrate)
        found = _effects(bench, one, at, list(own)) or _powers(own)
    except CompressionError:
        return {}
    kernels = profile(source, bench.subject.feeds[0])
    border = _BORDER * sum(kernel.ms for kernel in kernels)
    ms = {kernel.node: kernel.ms for kernel in kernels}
    harm = {name: power / (ms.get(name, 0.0) + border) for name, power in found.items()}
    total = sum(found.values()) or 1.0
    return {name: found[name] / total for name in sorted(harm, key=lambda name: -harm[name])}


def _quantized_at(one: Trial) -> int | None:
    """Which of its passes quantized layers, if one did."""
    kinds = [isinstance(pass_, StaticQuantization) for pass_ in one.passes]
    return kinds.index(True) if any(kinds) else None


def _powers(own: Mapping[str, float]) -> dict[str, float]:
    return {name: 10 ** (-sqnr / 10) for name, sqnr in own.items()}


def _effects(bench: Bench, one: Trial, at: int, layers: Sequence[str]) -> dict[str, float]:
    """Error power at the outputs with one layer quantized; empty if that takes too long."""
    known = bench.memory.effects(one.passes)
    if known:
        return known
    begun, found = time.monotonic(), dict[str, float]()
    allowed = _AFFORDABLE * (bench.deadline - begun)
    for number, name in enumerate(layers, 1):
        found[name] = _effect(bench, one, at, [other for other in layers if other != name])
        if (time.monotonic() - begun) / number * len(layers) > allowed:
            return {}
        bench.tell(f"effect of layer {number} of {len(layers)} on the outputs")
    bench.memory.keep_effects(one.passes, found)
    return found


def _effect(bench: Bench, one: Trial, at: int, float_layers: Sequence[str]) -> float:
    subject, asked = bench.subject, one.passes[at]
    if not isinstance(asked, StaticQuantization):
        raise TypeError(f"{asked.method} quantizes no layers")
    # Other operators stay float as well: their errors would hide those of good layers. Biases
    # stay as they are: to correct them takes longer than all else here.
    alone = asked.model_copy(
        update={
            "ops": asked.ops or list(LAYERS_ONLY),
            "keep_float": [*asked.keep_float, *float_layers],
            "bias_correction": False,
        }
    )
    silent = replace(subject, progress=lambda stage, share, said: None)
    made = run_passes(silent, [alone], done=one.made[:at], first=0, last=1)[-1]
    fidelity, _ = bench.on_calibration(_SAMPLES).compare(made.path)
    graph.remove(made.path)
    goal = subject.recipe.goal
    return error_power(fidelity, max_drop=goal.max_drop, min_sqnr_db=goal.min_sqnr_db)
