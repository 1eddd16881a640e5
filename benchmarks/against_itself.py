"""An unchanged model against itself while another job runs: never faster, never slower."""

import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from benchmarks.int8 import COMMAND, Subject
from worker.compression.benchmark import host_quiet, race


def measured(subject: Subject, repeats: int) -> str:
    """One row: the verdicts, and the largest difference for which one was given."""
    verdicts: Counter[str] = Counter()
    largest = 0.0
    stop = Event()
    with ThreadPoolExecutor() as pool:
        others = pool.submit(_other_jobs, subject, stop)
        try:
            for _ in range(repeats):
                paths = [subject.model, subject.model]
                (latency,) = race(paths, subject.feeds[0], threads=1, quiet=host_quiet)
                verdicts[latency.verdict] += 1
                if latency.verdict != "unreliable":
                    largest = max(largest, abs(latency.speedup - 1))
        finally:
            stop.set()
    return (
        f"{subject.name} against itself: {dict(verdicts)}, largest difference {largest:.2%}, "
        f"{others.result()} other jobs beside it"
    )


def _other_jobs(subject: Subject, stop: Event) -> int:
    """The same model compressed again and again, as jobs of their own; gives how many."""
    command = [COMMAND, "compress", subject.model, "--recipe", "int8"]
    done = 0
    while not stop.is_set():
        with tempfile.TemporaryDirectory() as folder:
            out = ["-o", str(Path(folder) / "out"), "--calibration", subject.calibration]
            subprocess.run([*command, *out], check=True, capture_output=True)
            done += 1
    return done
