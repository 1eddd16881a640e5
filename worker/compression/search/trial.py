"""One thing that the search tried, as far as it came."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from worker.compression.assessment import Made
from worker.compression.benchmark import Latency, runs_here
from worker.compression.fidelity import (
    Accuracy,
    Fidelity,
    bound_used,
    drop,
    foretold,
    keeps,
    worst_sqnr,
)
from worker.compression.passes import AnyPass, RuntimeFusion
from worker.compression.recipe import Goal
from worker.compression.subject import Subject
from worker.compression.verdict import FASTER, SMALLER, over_limits, percent

SPENT = "the time budget was spent"
UNMEASURED = "no reliable measurement"
"""What blocks a candidate on a machine that does other work as well."""


@dataclass(frozen=True)
class Trial:
    """A candidate: built, timed and compared with the original; or refused for a reason."""

    name: str
    passes: Sequence[AnyPass]
    made: Sequence[Made] = ()
    reason: str = ""
    bytes: int | None = None
    fidelity: Fidelity | None = None
    accuracy: Accuracy | None = None
    latency: Latency | None = None
    seen: Fidelity | None = None
    """On calibration samples: flattering, but many."""
    recalled: bool = False
    raced: bool = False
    """Timed beside its rivals, for longer than a glance."""

    @property
    def path(self) -> Path:
        return self.made[-1].path

    @property
    def portable(self) -> bool:
        """Whether other runtimes than ONNX Runtime have its operators."""
        return not any(isinstance(one, RuntimeFusion) for one in self.passes)

    @property
    def measured(self) -> bool:
        return None not in (self.bytes, self.fidelity, self.latency)

    @property
    def speedup(self) -> float:
        return self.latency.speedup if self.latency else 0.0

    def bound_used(self, goal: Goal) -> float:
        """Share of the bound that its loss takes, over all samples; above 1 it is outside."""
        if self.fidelity is None:
            return float("inf")
        here, there = self.fidelity.samples, self.seen.samples if self.seen else 0
        asked = partial(bound_used, max_drop=goal.max_drop, min_sqnr_db=goal.min_sqnr_db)
        used = asked(self.fidelity, self.accuracy, witnesses=there)
        if self.seen is None:
            return used
        return (here * used + there * asked(self.seen, None, witnesses=here)) / (here + there)

    def limits_used(self, goal: Goal) -> float:
        """The largest share that it takes of the bound and of each hard limit."""
        used = [self.bound_used(goal)]
        if goal.max_bytes is not None and self.bytes is not None:
            used.append(self.bytes / goal.max_bytes)
        if goal.max_latency_ms is not None and self.latency is not None:
            used.append(self.latency.after.p50 / goal.max_latency_ms)
        return max(used)

    def costs(self, goal: Goal) -> tuple[float, float, float]:
        """Milliseconds, share of the bound, bytes: less is better in each."""
        milliseconds = self.latency.after.p50 if self.latency else float("inf")
        return milliseconds, self.bound_used(goal), float(self.bytes or 0)


def dominated(one: Trial, others: Sequence[Trial], goal: Goal) -> bool:
    """Whether another trial is at least as good in everything, and better in something."""
    mine = one.costs(goal)
    for other in others:
        if other is one or not other.measured:
            continue
        costs = other.costs(goal)
        if costs != mine and all(a <= b for a, b in zip(costs, mine, strict=True)):
            return True
    return False


def inside(one: Trial, goal: Goal) -> bool:
    """Whether what was measured on the selecting samples leaves it inside the bound."""
    if one.fidelity is None:
        return False
    kept = keeps(
        one.fidelity, one.accuracy, max_drop=goal.max_drop, min_sqnr_db=goal.min_sqnr_db
    )
    return kept and one.bound_used(goal) <= 1


def shortfall(subject: Subject, one: Trial) -> str:
    """What keeps a candidate from being better than the original, in words; or nothing."""
    goal = subject.recipe.goal
    if one.reason or not one.measured or one.latency is None or one.bytes is None:
        return one.reason or "it was not measured"
    if not inside(one, goal):
        return f"outside the bound: {loss(one)}"
    over = over_limits(goal, one.bytes, one.latency.after.p50)
    if over:
        return "; ".join(over)
    if not runs_here(subject.recipe.target.cpu):
        return ""
    if goal.objective == "size":
        return _not_smaller(subject, one.bytes, one.latency)
    return _not_faster(one.latency, raced=one.raced)


def _not_smaller(subject: Subject, count: int, latency: Latency) -> str:
    """Bytes need no quiet machine: only what is measurably slower is refused."""
    if latency.verdict == "slower":
        return f"slower ({latency.speedup:.2f}x)"
    ratio = count / subject.model.bytes
    return "" if ratio <= SMALLER else f"not smaller ({ratio:.2f}x of the bytes)"


def _not_faster(latency: Latency, *, raced: bool) -> str:
    """A glance that other work disturbed refuses nothing that may win: the race decides."""
    if latency.verdict == "unreliable" and not raced and latency.speedup >= FASTER:
        return ""
    if latency.verdict == "unreliable":
        return f"{UNMEASURED} (about {latency.speedup:.2f}x)"
    if latency.verdict == "slower":
        return f"slower ({latency.speedup:.2f}x)"
    if latency.verdict != "faster" or latency.interval[0] < FASTER:
        return f"not measurably faster ({latency.speedup:.2f}x)"
    return ""


def loss(one: Trial) -> str:
    """What it loses, in words."""
    if one.fidelity is None:
        return "not compared"
    lost, sqnr = drop(one.fidelity, one.accuracy), worst_sqnr(one.fidelity)
    witnesses = one.seen.samples if one.seen else 0
    likely = max((foretold(out, witnesses) for out in one.fidelity.outputs), default=0.0)
    words = [] if lost is None else [f"drop {percent(lost)}"]
    if lost is not None and likely > lost:
        words.append(f"up to {percent(likely)} likely on others")
    words += [] if sqnr is None else [f"worst channel at {sqnr:.1f} dB"]
    return ", ".join(words) or "identical"
