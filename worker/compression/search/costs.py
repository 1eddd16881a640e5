"""What a candidate costs in seconds, before it is tried and as far as it was seen."""

from collections.abc import Sequence

from worker.compression import graph
from worker.compression.errors import PassFailed
from worker.compression.passes import AnyPass
from worker.compression.subject import Subject
from worker.compression.timetable import inference_seconds

# Enough to tell what is slower; those that are left race again, longer and together.
GLANCE_SECONDS = 0.4
LONGEST_GLANCE = 4.0
WITNESSES = 64
"""Calibration samples that a candidate is compared on as well, where few others select."""
# Inferences for each calibration sample that a method is known to take; it may turn out more.
_INFERENCES = {"graph_cleaning": 0.0, "compaction": 0.0, "static_quantization": 2.0}
_OTHERS = 3.0
# What making a file takes besides: seconds, and bytes of the model in a second.
_FIXED, _BYTES = 0.3, 25e6
# Seconds that a glance waits for quiet.
_WAIT = 0.3
# Inferences of a glance: two sessions and the candidate, warmed up, in blocks.
_GLANCED = 45


class OutOfTime(PassFailed):
    """A candidate was given up, since the search would not have ended in time."""


class Costs:
    """Learns from each candidate; what is of a new kind is estimated from the model's speed."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._seen: dict[str, float] = {}

    def expected(self, passes: Sequence[AnyPass]) -> float:
        """Seconds until a candidate is made, timed and compared."""
        seen = self._seen.get(_kind(passes))
        return self._estimate(passes) if seen is None else seen

    def learn(self, passes: Sequence[AnyPass], seconds: float) -> None:
        """Remember the longest of each kind: a budget is kept by pessimists."""
        kind = _kind(passes)
        self._seen[kind] = max(seconds, self._seen.get(kind, 0.0))

    def judging(self) -> float:
        """Seconds of timing and comparing a file that is there."""
        split, one = self._subject.split, inference_seconds(self._subject)
        glance = max(GLANCE_SECONDS, min(_GLANCED * one, LONGEST_GLANCE)) + _WAIT
        # The original's answers are needed as well, before the first can be compared.
        samples = len(split.select) + min(len(split.calibrate), WITNESSES)
        return glance + samples * one * (1 if self._seen else 2)

    def _estimate(self, passes: Sequence[AnyPass]) -> float:
        # The passes before the last were mostly made for another candidate.
        last = passes[-1].method
        runs = _INFERENCES.get(last, _OTHERS) * len(self._subject.split.calibrate)
        reading = _FIXED + graph.file_bytes(self._subject.original) / _BYTES
        running = runs * inference_seconds(self._subject)
        return self._subject.slowdown * reading + running + self.judging()


def _kind(passes: Sequence[AnyPass]) -> str:
    return " ".join(one.method for one in passes)
