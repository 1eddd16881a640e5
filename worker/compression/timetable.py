"""How long the end of a job takes, and how its time is shared out, so that it ends in time."""

import time
import warnings

from worker.compression import graph
from worker.compression.errors import CompressionWarning
from worker.compression.subject import Subject

# Inferences of a report besides one for each sample and model: profiles and layers' errors,
# golden outputs, memory.
_INFERENCES = 60
# Reading, hashing and packing the files: bytes in a second, and the seconds of any report.
_BYTES, _FIXED = 25e6, 1.5
# A race that is to be believed takes this long, and this many inferences.
_RACE, _RACE_INFERENCES = 2.0, 60
LONGEST_RACE = 20.0


def inference_seconds(subject: Subject) -> float:
    """Of the original, as far as it was looked at, with the load that the host has."""
    return subject.slowdown * subject.expected.latency_ms / 1e3 if subject.expected else 0.0


def seconds_left(subject: Subject) -> float:
    """Until the report should be written; infinite by hand."""
    return subject.deadline - time.monotonic()


def race_seconds(subject: Subject) -> float:
    """What one race needs for a verdict."""
    return subject.slowdown * _RACE + _RACE_INFERENCES * inference_seconds(subject)


def writing_seconds(subject: Subject) -> float:
    """From the last race to the end: sizes, layers, report and bundle."""
    files = 2 * graph.file_bytes(subject.original)
    reading = subject.slowdown * (_FIXED + files / _BYTES)
    return reading + _INFERENCES * inference_seconds(subject)


def closing_seconds(subject: Subject) -> float:
    """From the choice of a result to the end: it is compared, timed and reported."""
    comparing = 2 * len(subject.split.report) * inference_seconds(subject)
    return comparing + race_seconds(subject) + writing_seconds(subject)


def timing_seconds(subject: Subject, races: int) -> float:
    """Most seconds that each of the next `races` may take, so that all end in time."""
    left = seconds_left(subject) - writing_seconds(subject)
    return min(max(left / races, 0.0), LONGEST_RACE)


def there_is_time(subject: Subject, seconds: float) -> bool:
    """Whether something that can be left out still fits before the report is written."""
    return seconds <= seconds_left(subject) - writing_seconds(subject)


def leave_out(what: str) -> None:
    """Tell the user what the report lacks, and why."""
    warnings.warn(
        CompressionWarning(f"the time budget left no room for {what}", code="report_shortened"),
        stacklevel=2,
    )
