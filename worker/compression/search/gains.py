"""What a candidate would gain over the best so far."""

from worker.compression.search.bench import Bench, by_bytes
from worker.compression.search.trial import Trial, inside

# Less gain than this over the best so far is not worth a repair.
_WORTH = 1.03


def gain(bench: Bench, one: Trial) -> float:
    """How many times better than the best so far, or the original, in what was asked for."""
    best = bench.best()
    if by_bytes(bench.subject):
        before = best.bytes if best and best.bytes else bench.subject.model.bytes
        return before / max(one.bytes or before, 1)
    return one.speedup / (best.speedup if best else 1.0)


def promising(bench: Bench) -> list[Trial]:
    """Trials outside the bound that would be the best if they were inside, best first."""
    outside = [
        one
        for one in bench.trials
        if one.measured and not inside(one, bench.goal) and gain(bench, one) > _WORTH
    ]
    return sorted(outside, key=lambda one: -gain(bench, one))
