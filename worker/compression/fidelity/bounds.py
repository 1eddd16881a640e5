"""From what was measured to one figure, and whether it stays inside the bound."""

import math

from worker.compression.fidelity.measures import Accuracy, Fidelity, OutputFidelity
from worker.compression.fidelity.signal import LOST_DB

_ROUNDING = 1e-9
# Labelled samples whose task metric needs no other witness.
_ENOUGH_LABELS = 256
# Answers that may change within the bound, from which on counting them tells enough.
_TELLING = 2
# A drop foretold from n answers is off by 1.5 / sqrt(n) of itself (400 crops cut into sets);
# with this margin one in ten still turns out worse than it was taken to be.
_MARGIN = 2.0


def drop(fidelity: Fidelity, accuracy: Accuracy | None) -> float | None:
    """Relative loss of the task metric, else the worst drop of all outputs that have one.

    An output that was lost (NaN, another shape) counts even where labels are about another one.
    None where only value outputs were compared.
    """
    if accuracy is None:
        return max((one.drop for one in fidelity.outputs if one.drop is not None), default=None)
    return max([accuracy.drop, *(1.0 for one in fidelity.outputs if _lost(one))])


def interval_end(fidelity: Fidelity, accuracy: Accuracy | None) -> float | None:
    """Upper end of the drop's 95 % interval."""
    if accuracy is None:
        ends = [one.interval[1] for one in fidelity.outputs if one.interval is not None]
        return max(ends, default=None)
    return max([accuracy.interval[1], *(1.0 for one in fidelity.outputs if _lost(one))])


def worst_sqnr(fidelity: Fidelity) -> float | None:
    """SQNR in dB of the worst signal-carrying channel of all value outputs.

    None where there are none, or where they are identical.
    """
    found = [_sqnr(one) for one in fidelity.outputs if one.kind == "value"]
    return min((one for one in found if one is not None), default=None)


def keeps(
    fidelity: Fidelity,
    accuracy: Accuracy | None,
    *,
    max_drop: float,
    min_sqnr_db: float,
) -> bool:
    """Whether the point estimates stay inside the bound."""
    lost, sqnr = drop(fidelity, accuracy), worst_sqnr(fidelity)
    return (lost is None or lost <= max_drop + _ROUNDING) and (
        sqnr is None or sqnr >= min_sqnr_db - _ROUNDING
    )


def bound_used(
    fidelity: Fidelity,
    accuracy: Accuracy | None,
    *,
    max_drop: float,
    min_sqnr_db: float,
    witnesses: int = 0,
) -> float:
    """How much of the bound a result uses up: 0 is identical, above 1 is outside.

    For choosing among results on few samples, and so stricter than `keeps`: a class output
    must also be unlikely to change its answers on other samples. Enough answers or labels
    settle that by themselves. `witnesses`: further samples that the caller has asked, which
    make the estimate surer.
    """
    allowed = max(max_drop, _ROUNDING)
    lost, sqnr = drop(fidelity, accuracy), worst_sqnr(fidelity)
    parts = [0.0 if lost is None else lost / allowed]
    if sqnr is not None:
        parts.append(10 ** ((min_sqnr_db - sqnr) / 20))
    if accuracy is None or (accuracy.source != "own" and accuracy.samples < _ENOUGH_LABELS):
        few = [one for one in fidelity.outputs if (one.answers or 0) * allowed < _TELLING]
        parts += [foretold(one, witnesses) / allowed for one in few]
    return max(parts)


def foretold(one: OutputFidelity, witnesses: int) -> float:
    """The likely drop with a margin for how few answers it was estimated from."""
    if not one.likely_drop:
        return 0.0
    return one.likely_drop * (1 + _MARGIN / math.sqrt((one.answers or 1) + witnesses))


def error_power(fidelity: Fidelity, *, max_drop: float, min_sqnr_db: float) -> float:
    """Error of the worst output in squared units of its bound.

    Powers of independent errors add up, which tells apart what each of them contributes; a drop
    does not, as long as no answer has changed. For the same reason all scores of a class output
    count, not only those that lead.
    """
    allowed = max(max_drop, _ROUNDING)
    return max((_power(one, allowed, min_sqnr_db) for one in fidelity.outputs), default=0.0)


def _power(one: OutputFidelity, allowed: float, min_sqnr_db: float) -> float:
    if one.kind == "embedding" and one.drop is not None:
        return one.drop / allowed
    sqnr = _sqnr(one) if one.kind == "value" else one.sqnr_db
    return 0.0 if sqnr is None else float(10 ** ((min_sqnr_db - sqnr) / 10))


def _lost(one: OutputFidelity) -> bool:
    return one.drop == 1.0 and one.sqnr_db == LOST_DB


def _sqnr(one: OutputFidelity) -> float | None:
    worst = one.worst_channel.sqnr_db if one.worst_channel else None
    known = [sqnr for sqnr in (one.sqnr_db, worst) if sqnr is not None]
    return min(known, default=None)
