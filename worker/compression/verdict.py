"""The outcome and its one honest sentence, from what was measured."""

from dataclasses import dataclass

from worker.compression.benchmark import Latency, runs_here
from worker.compression.fidelity import (
    LOST_DB,
    Accuracy,
    Fidelity,
    drop,
    interval_end,
    keeps,
    worst_sqnr,
)
from worker.compression.passes import Target
from worker.compression.recipe import Goal
from worker.compression.report import Outcome, Portability, Size, Verdict

FASTER = 1.02
"""Least lower end of the speed-up's interval that is called faster."""
SMALLER = 0.95
"""Largest share of the bytes that is called smaller."""
BUSY = "the machine was too busy to measure"
"""Why a latency is unreliable: other work, or too little time to see through the noise."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of a result. `reason` says why the original came back, where it did.

    `doubt` says why the samples verify nothing, where it is not their number.
    """

    goal: Goal
    target: Target
    automatic: bool
    verified: bool
    methods: tuple[str, ...]
    sizes: tuple[Size, Size]
    latency: list[Latency]
    fidelity: Fidelity
    accuracy: Accuracy | None
    reason: str | None
    portability: Portability | None = None
    doubt: str | None = None

    @property
    def deciding(self) -> Latency:
        """The setting that was asked for: the target's threads, the commonest shape."""
        return self.latency[0]

    @property
    def kept(self) -> bool:
        return keeps(
            self.fidelity,
            self.accuracy,
            max_drop=self.goal.max_drop,
            min_sqnr_db=self.goal.min_sqnr_db,
        )

    @property
    def bytes_ratio(self) -> float:
        before, after = self.sizes
        return after.bytes / before.bytes

    @property
    def over(self) -> list[str]:
        return over_limits(self.goal, self.sizes[1].bytes, self.deciding.after.p50)

    @property
    def slower(self) -> bool:
        threads = self.deciding.threads
        return any(
            timed.verdict == "slower" for timed in self.latency if timed.threads == threads
        )


def judge(evidence: Evidence) -> Verdict:
    """Name the outcome (DESIGN.md 3.5) and say it in words."""
    outcome = _outcome(evidence)
    parts = [_opening(evidence, outcome), _sizes(evidence), _latency(evidence)]
    parts += [_closeness(evidence), _limits(evidence), _zeros(evidence)]
    if evidence.portability is not None:
        parts.append(evidence.portability.sentence)
    return Verdict(
        outcome=outcome,
        sentence=" ".join(part for part in parts if part),
        drop=drop(evidence.fidelity, evidence.accuracy),
        sqnr_db=worst_sqnr(evidence.fidelity),
    )


def _outcome(evidence: Evidence) -> Outcome:
    if evidence.reason is not None:
        return "not_better"
    if not runs_here(evidence.target.cpu):
        return "not_measured_here"
    if evidence.automatic:
        return _automatic(evidence)
    if not evidence.verified:
        return "not_verified"
    if not evidence.kept:
        return "as_asked_but_worse"
    return "as_asked_but_slower" if evidence.slower else "as_asked"


def _automatic(evidence: Evidence) -> Outcome:
    if evidence.goal.objective == "latency":
        improved = (
            evidence.deciding.verdict == "faster" and evidence.deciding.interval[0] >= FASTER
        )
    else:
        improved = evidence.bytes_ratio <= SMALLER
    if not improved or evidence.slower or evidence.over:
        return "not_better"
    if not evidence.verified:
        return "not_verified"
    return "better" if evidence.kept else "not_better"


def over_limits(goal: Goal, count: int, latency_ms: float) -> list[str]:
    """The hard limits that a file of `count` bytes and this latency exceeds, in words."""
    found = []
    if goal.max_bytes is not None and count > goal.max_bytes:
        found.append(f"its {count:,} bytes are over the limit of {goal.max_bytes:,}")
    if goal.max_latency_ms is not None and latency_ms > goal.max_latency_ms:
        found.append(
            f"its {latency_ms:.3g} ms are over the limit of {goal.max_latency_ms:g} ms"
        )
    return found


def _opening(evidence: Evidence, outcome: Outcome) -> str:
    if evidence.reason is not None:
        return f"The original is returned unchanged: {evidence.reason}."
    wanted = "faster" if evidence.goal.objective == "latency" else "smaller"
    return {
        "better": f"The model is {wanted} and keeps its quality within the bound.",
        "not_better": _not_better(evidence, wanted),
        "as_asked": "Done as asked.",
        "as_asked_but_slower": "Done as asked, but the result is slower than the original.",
        "as_asked_but_worse": "Done as asked, but the result is worse than the bound allows"
        + (" and slower than the original." if evidence.slower else "."),
        "not_verified": f"Not verified: {_unverified(evidence)}.",
        "not_measured_here": f"Made for {evidence.target.cpu}, which this machine is not: "
        "its speed and results there were not measured.",
    }[outcome]


def _not_better(evidence: Evidence, wanted: str) -> str:
    if not evidence.kept:
        return "The result is outside the bound."
    if evidence.deciding.verdict == "unreliable":
        return (
            f"Whether the result is {'faster' if wanted == 'faster' else 'slower'} is not "
            f"known: {BUSY}."
        )
    if evidence.slower:
        return "The result is slower than the original."
    return f"The result is not {wanted} within the bound."


def _unverified(evidence: Evidence) -> str:
    if evidence.fidelity.source == "synthetic":
        return "there are no real samples to judge the quality on"
    return evidence.doubt or "there are too few real samples to judge the quality on"


def _sizes(evidence: Evidence) -> str:
    before, after = evidence.sizes
    if evidence.reason is not None:
        return ""
    sizes = f"{in_bytes(before.bytes)} became {in_bytes(after.bytes)}"
    return f"{sizes} ({evidence.bytes_ratio:.2f}x)."


def _latency(evidence: Evidence) -> str:
    if evidence.reason is not None:
        return ""
    timed = evidence.deciding
    figures = f"{timed.before.p50:.3g} ms to {timed.after.p50:.3g} ms"
    low, high = timed.interval
    interval = f"{timed.speedup:.2f}x, 95 % {low:.2f} to {high:.2f}"
    threads = f"{timed.threads} thread" + ("s" if timed.threads > 1 else "")
    return {
        "faster": f"Faster: {figures} with {threads} ({interval}).",
        "slower": f"Slower: {figures} with {threads} ({interval}).",
        "equal": f"Latency did not measurably change: {figures} with {threads} ({interval}).",
        "unreliable": f"Latency is not known, since {BUSY} it reliably: about {figures} with "
        f"{threads} ({interval}).",
    }[timed.verdict]


def _closeness(evidence: Evidence) -> str:
    if evidence.reason is not None:
        return ""
    fidelity = evidence.fidelity
    if all(output.identical for output in fidelity.outputs):
        return f"Outputs are identical on {_samples(fidelity)}."
    parts = "; ".join(part for part in (_lost(evidence), _sqnr(evidence)) if part)
    if not parts:
        return ""
    beyond = " That is outside the bound." if not (evidence.verified or evidence.kept) else ""
    return f"{parts[0].upper()}{parts[1:]}, on {_samples(fidelity)}.{beyond}"


def _samples(fidelity: Fidelity) -> str:
    kind = "synthetic" if fidelity.source == "synthetic" else "held-out"
    return f"{fidelity.samples} {kind} sample{'' if fidelity.samples == 1 else 's'}"


def _lost(evidence: Evidence) -> str:
    lost = drop(evidence.fidelity, evidence.accuracy)
    if lost is None:
        return ""
    end = interval_end(evidence.fidelity, evidence.accuracy)
    reach = f" (95 %: at most {percent(end)})" if end is not None and end > lost else ""
    if evidence.accuracy is None:
        return f"{_what(evidence.fidelity, lost)} {percent(lost)}{reach}"
    accuracy = evidence.accuracy
    return (
        f"the metric {accuracy.metric} went from {accuracy.before:.4g} to "
        f"{accuracy.after:.4g}, a relative drop of {percent(lost)}{reach}"
    )


def _what(fidelity: Fidelity, lost: float) -> str:
    """What `lost` is a share of: it is the worst output's."""
    worst = next(one for one in fidelity.outputs if one.drop == lost)
    if worst.drop == 1.0 and worst.sqnr_db == LOST_DB:
        return f"output {worst.name!r} is broken (not finite, or of another shape): lost"
    return "1 - cosine of the embeddings:" if worst.kind == "embedding" else "changed answers:"


def _sqnr(evidence: Evidence) -> str:
    worst = worst_sqnr(evidence.fidelity)
    return "" if worst is None else f"worst channel SQNR {worst:.1f} dB"


def _limits(evidence: Evidence) -> str:
    over = evidence.over
    return f"{'; '.join(over).capitalize()}." if over and evidence.reason is None else ""


def _zeros(evidence: Evidence) -> str:
    if "magnitude_pruning" not in evidence.methods or evidence.reason is not None:
        return ""
    after = evidence.sizes[1]
    share = 1 - after.nonzero_parameters / max(after.parameters, 1)
    return (
        f"{100 * share:.0f} % of the weights are zero: that shrinks the compressed download "
        f"({in_bytes(after.compressed_bytes)} with zstd), not latency or memory."
    )


def percent(share: float) -> str:
    """A share for people: 0.96 %, 12 %, 100 %."""
    return f"{100 * share:.2g} %" if abs(share) < 0.995 else f"{100 * share:.0f} %"


def in_bytes(count: int) -> str:
    """A byte count for people: 1,234 bytes, 12.3 kB, 4.5 MB."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:,} bytes"
