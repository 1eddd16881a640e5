"""Time the model of this bundle.

python bench.py [--original ORIGINAL.onnx] [--threads N] [--seconds S]

With the original, both are timed in turns, and the ratio comes with a 95 % interval; the
original is also timed against itself, which shows the noise of this machine. Needs Python 3.9,
numpy and onnxruntime. Exit codes: 0 timed; 2 a bad argument; 3 a model could not be run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # python -I leaves it out

import numpy as np
from verify import (  # type: ignore[import-not-found]  # it lies beside this file
    NOT_RUN,
    environment,
    facts_of,
    golden,
    opened,
)

RESAMPLED = 2000
BLOCK_SECONDS = 0.002
ROUNDS = 15


def caller(session: Any, feed: dict[str, np.ndarray]) -> Callable[[], Any]:  # noqa: ANN401 - onnxruntime has no types
    names = {entry.name for entry in session.get_inputs()}
    known = {name: value for name, value in feed.items() if name in names}
    return lambda: session.run(None, known)


def repeats(call: Callable[[], Any]) -> int:
    """Inferences in a block, so that the clock's own error is nothing beside it."""
    call()
    started = time.perf_counter()
    call()
    return max(1, int(BLOCK_SECONDS / max(time.perf_counter() - started, 1e-7)))


def timed(call: Callable[[], Any], count: int) -> float:
    """Milliseconds of one inference, mean of a block."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - started) * 1e3 / count


def race(calls: list[Callable[[], Any]], seconds: float) -> np.ndarray:
    """Milliseconds, a row a round; every other round runs in the opposite order."""
    counts = [repeats(call) for call in calls]
    order = list(range(len(calls)))
    rounds: list[list[float]] = []
    end = time.perf_counter() + seconds
    while len(rounds) < ROUNDS or time.perf_counter() < end:
        row = [0.0] * len(calls)
        for place in order:
            row[place] = timed(calls[place], counts[place])
        rounds.append(row)
        order.reverse()
    return np.array(rounds)


def ratio(rounds: np.ndarray, above: int, below: int) -> np.ndarray:
    """Median ratio of two columns with its 95 % bootstrap interval: (low, median, high)."""
    quotients = rounds[:, above] / rounds[:, below]
    drawn = np.random.default_rng(0).integers(0, len(quotients), (RESAMPLED, len(quotients)))
    low, high = np.percentile(np.median(quotients[drawn], axis=1), [2.5, 97.5])
    return np.array([low, np.median(quotients), high])


def verdict(interval: np.ndarray, noise: np.ndarray) -> str:
    """faster, slower or equal, where the noise lets it be told."""
    reach = max(noise[2] - 1, 1 - noise[0], 0.02)
    if reach > 0.25:
        return "unreliable: this machine is too busy to tell"
    if interval[0] > 1 + reach:
        return "faster"
    return "slower" if interval[2] < 1 - reach else "equal within the noise"


def print_row(name: str, milliseconds: np.ndarray) -> None:
    p50, p90, p99 = np.percentile(milliseconds, [50, 90, 99])
    print(f"{name:<9} p50 {p50:.3f} ms, p90 {p90:.3f} ms, p99 {p99:.3f} ms")


def bench(original: Path | None, threads: int | None, seconds: float) -> int:
    folder = Path(__file__).resolve().parent
    facts = facts_of(folder)
    threads = threads or facts["threads"]
    feed = next(golden(folder)).feed
    paths = [folder / "model.onnx", *([original, original] if original else [])]
    # The control is opened last: what was opened before it has the same caches as always.
    calls = [caller(opened(path, threads, precise=True), feed) for path in paths]
    rounds = race(calls, seconds)
    print(f"here:     {environment()}, {threads} thread(s), {len(rounds)} rounds")
    print_row("model", rounds[:, 0])
    if original is None:
        print("give --original ORIGINAL.onnx to compare it with what it was made from")
        return 0
    print_row("original", rounds[:, 1])
    found, noise = ratio(rounds, 1, 0), ratio(rounds, 2, 1)
    print(f"original against itself: {noise[1]:.3f}x [{noise[0]:.3f}, {noise[2]:.3f}]")
    print(f"speed-up: {found[1]:.2f}x [{found[0]:.2f}, {found[2]:.2f}], 95 %")
    print("verdict:", verdict(found, noise))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--original", type=Path, help="the model before compression (.onnx)")
    parser.add_argument("--threads", type=int, help="threads of one inference")
    parser.add_argument("--seconds", type=float, default=5.0, help="least time to spend")
    arguments = parser.parse_args()
    if arguments.original and not arguments.original.is_file():
        parser.error(f"there is no file {arguments.original}")
    try:
        return bench(arguments.original, arguments.threads, arguments.seconds)
    except Exception as error:
        print(f"NOT RUN: {type(error).__name__}: {error}")
        return int(NOT_RUN)


if __name__ == "__main__":
    sys.exit(main())
