"""An unchanged model against itself while another job runs: never faster, never slower.

python -m benchmarks.against_itself [--repeats N] [--corpus DIR]
"""

import argparse
import subprocess
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from benchmarks.int8 import COMMAND, Subject, digits, from_corpus
from benchmarks.rows import Results, Row
from worker.compression.benchmark import host_quiet, race


def measured(subject: Subject, repeats: int) -> Row:
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
    return {
        "bench": "against_itself", "model": subject.name, "races": repeats,
        "verdicts": dict(verdicts), "largest_difference": round(largest, 4),
        "other_jobs": others.result(), "wrong": verdicts["faster"] + verdicts["slower"],
    }  # fmt: skip


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--corpus", type=Path, help="minilm of it, too")
    given = parser.parse_args()
    results = Results()
    results.add(measured(digits(), given.repeats))
    if given.corpus:
        results.add(measured(from_corpus(given.corpus, "minilm"), given.repeats))


if __name__ == "__main__":
    main()
