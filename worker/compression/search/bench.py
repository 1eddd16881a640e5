"""Where candidates are made, timed and compared, as long as the time budget lasts."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from worker.compression import graph
from worker.compression.assessment import Made
from worker.compression.benchmark import Latency, race, runs_here
from worker.compression.errors import CompressionError
from worker.compression.fidelity import Fidelity, Yardstick
from worker.compression.passes import AnyPass
from worker.compression.pipeline import run_passes
from worker.compression.search.costs import (
    GLANCE_SECONDS,
    LONGEST_GLANCE,
    WITNESSES,
    Costs,
    OutOfTime,
)
from worker.compression.search.memory import Memory, identity
from worker.compression.search.trial import SPENT, Trial, dominated, shortfall
from worker.compression.subject import Subject, digest

# How much of a gain counts that ties the result to one runtime.
_UNPORTABLE = 0.95
# A pass that says so changed nothing: its candidate is the one before it under another name.
_IDLE = ("nothing_quantized", "nothing_scaled", "nothing_stored_smaller", "nothing_to_prune")
# Selecting samples that need no witness.
_ENOUGH = 128
# Share of the job's progress that the search fills.
_FROM, _TO = 0.05, 0.5


class Bench:
    """Tries candidates one by one and keeps what became of each in `trials`.

    `deadline` is the `time.monotonic()` at which the last one must be done.
    """

    def __init__(self, subject: Subject, deadline: float) -> None:
        self.subject, self.deadline = subject, deadline
        self.goal = subject.recipe.goal
        self.trials: list[Trial] = []
        self.memory = Memory(subject.cache, identity(subject))
        self._begun = time.monotonic()
        self._done: dict[str, Sequence[Made]] = {}
        self._costs = Costs(subject)
        self._contents: dict[str, str] = {}
        self._reference: Yardstick | None = None
        self._witnesses: dict[int, Yardstick] = {}

    @property
    def reference(self) -> Yardstick:
        """The original's answers on the selecting samples, from one run of it."""
        if self._reference is None:
            self._reference = self.subject.reference(self.subject.split.select, "select")
        return self._reference

    def _seen(self, path: Path) -> Fidelity | None:
        """Against the original on calibration samples, where few others select."""
        split = self.subject.split
        if len(split.select) >= _ENOUGH or self.subject.metric or split.select.labels:
            return None
        return self.on_calibration(WITNESSES).compare(path)[0]

    def on_calibration(self, count: int) -> Yardstick:
        """The original's answers on the first `count` calibration samples."""
        if count not in self._witnesses:
            some = self.subject.split.calibrate[:count]
            self._witnesses[count] = self.subject.reference(some, f"calibrate-{count}")
        return self._witnesses[count]

    def try_(self, name: str, passes: Sequence[AnyPass]) -> Trial:
        """One candidate, unless it was tried before or the budget would not let it end."""
        for one in self.trials:
            if list(one.passes) == list(passes):
                return one
        trial = self._recalled(name, passes) or self._new(name, passes)
        self.trials.append(trial)
        self._tidy()
        return trial

    def _recalled(self, name: str, passes: Sequence[AnyPass]) -> Trial | None:
        """What an earlier search found; what might win must still have its file."""
        found = self.memory.recall(name, passes)
        if found is None or found.reason:
            return found
        if found.latency is None:
            return replace(found, latency=self._glance(found.path)) if found.made else None
        return found if found.made or shortfall(self.subject, found) else None

    def _glance(self, path: Path) -> Latency:
        return race(
            [self.subject.original, path],
            self.subject.feeds[0],
            threads=self.subject.recipe.target.threads,
            quiet=self.subject.quiet,
            min_seconds=GLANCE_SECONDS,
            max_seconds=LONGEST_GLANCE,
        )[0]

    def _new(self, name: str, passes: Sequence[AnyPass]) -> Trial:
        begun = time.monotonic()
        if begun + self._costs.expected(passes) > self.deadline:
            return Trial(name, passes, reason=SPENT)
        self.tell(f"trying {name} ({self._so_far()})")
        try:
            trial = self._measured(self._made(name, passes))
        except OutOfTime as late:
            trial = Trial(name, passes, reason=late.message)
        self._costs.learn(passes, time.monotonic() - begun)
        return trial

    def spent(self) -> bool:
        """Whether no candidate could be made and judged any more, whatever it is."""
        return time.monotonic() + self._costs.judging() > self.deadline

    def _in_time(self, needed: float = 0.0) -> None:
        """Give a candidate up that took longer than was expected.

        Raises:
            OutOfTime: what remains to be done, `needed` seconds of it, would end too late.
        """
        if time.monotonic() + needed > self.deadline:
            raise OutOfTime(SPENT)

    def best(self) -> Trial | None:
        """The best so far of those inside the bound and better than the original."""
        return next(iter(ranked(self.subject, self.trials)), None)

    def tell(self, message: str) -> None:
        """Progress by the clock: how many more candidates there will be, nobody knows."""
        allowed = max(self.deadline - self._begun, 1e-3)
        share = min((time.monotonic() - self._begun) / allowed, 1.0)
        self.subject.progress("search", _FROM + (_TO - _FROM) * share, message)

    def _so_far(self) -> str:
        best = self.best()
        found = f", best {_figure(best, self.goal.objective)}" if best else ""
        return f"{len(self.trials)} tried{found}"

    def _made(self, name: str, passes: Sequence[AnyPass]) -> Trial:
        """The candidate's file; passes that candidates share from the start are run once."""
        made: Sequence[Made] = ()
        inner = replace(self.subject, progress=self._heard)
        try:
            for number in range(len(passes)):
                key = repr(passes[: number + 1])
                if key not in self._done or not self._done[key][-1].path.exists():
                    self._done[key] = run_passes(
                        inner, [passes[number]], done=made, first=0, last=1
                    )
                made = self._done[key]
        except OutOfTime:
            raise
        except CompressionError as error:
            return Trial(name, passes, reason=error.message)
        idle = [said.message for said in made[-1].warnings if said.code in _IDLE]
        if idle:
            return Trial(name, passes, reason=idle[0])
        # Of a model beside its data, the file alone does not tell.
        apart = graph.external_files(made[-1].path)
        content = name if apart else digest(made[-1].path)
        if (other := self._contents.setdefault(content, name)) != name:
            return Trial(name, passes, reason=f"the same file as {other}")
        return Trial(name, passes, made, bytes=graph.file_bytes(made[-1].path))

    def _heard(self, stage: str, share: float, message: str) -> None:
        """Passes tell of themselves as parts of the search; that is also when they can end."""
        self._in_time(self._costs.judging())
        self.tell(message)

    def _measured(self, one: Trial) -> Trial:
        if not one.made:
            return one
        self._in_time(self._costs.judging())
        latency = self._glance(one.path)
        fidelity, accuracy = self.reference.compare(one.path)
        return replace(
            one,
            latency=latency,
            fidelity=fidelity,
            accuracy=accuracy,
            seen=self._seen(one.path),
        )

    def _tidy(self) -> None:
        """Delete files that are beaten in everything: of large models there is no room."""
        shared = {id(made) for one in self.trials for made in one.made[:-1]}
        for one in self.trials:
            if not one.measured or not one.made or one.recalled or id(one.made[-1]) in shared:
                continue
            if one.path.exists() and dominated(one, self.trials, self.goal):
                graph.remove(one.path)


def ranked(subject: Subject, trials: Sequence[Trial]) -> list[Trial]:
    """Trials that are better than the original and inside the bound, best first."""
    good = [
        one for one in trials if not shortfall(subject, one) and one.made and one.path.exists()
    ]
    if by_bytes(subject):
        return sorted(
            good, key=lambda one: (_rated(one, 1 / (one.bytes or 1)), one.speedup), reverse=True
        )
    return sorted(good, key=lambda one: _rated(one, one.speedup), reverse=True)


def _rated(one: Trial, figure: float) -> float:
    """What only ONNX Runtime runs has to be clearly better than what runs everywhere."""
    return figure if one.portable else _UNPORTABLE * figure


def by_bytes(subject: Subject) -> bool:
    """Whether bytes decide: asked for, or because this machine's times say nothing."""
    recipe = subject.recipe
    return recipe.goal.objective == "size" or not runs_here(recipe.target.cpu)


def _figure(one: Trial, objective: str) -> str:
    return f"{one.speedup:.2f}x" if objective == "latency" else f"{one.bytes:,} bytes"
