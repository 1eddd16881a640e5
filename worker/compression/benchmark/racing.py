"""Models timed against each other under the same conditions, and against chance."""

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnxruntime as ort

from worker.compression import graph
from worker.compression.benchmark.measures import Latency
from worker.compression.benchmark.quiet import BUSY_SHARE, Load, Quiet
from worker.compression.benchmark.statistics import percentiles, ratio, verdict

Progress = Callable[[float, str], None]

_BLOCKS, _FEWEST_BLOCKS = 8, 3
_ROUNDS, _MOST_ROUNDS = 24, 4000
_WARM_UP = 3
# Above this a second session of the baseline would cost too much memory.
_SHARED_CONTROL_BYTES = 256 << 20
_BALLAST_BYTES = 1 << 20
_SEED = 0


def _silent(share: float, message: str) -> None:
    """Nobody asked."""


@dataclass(frozen=True)
class Plan:
    """How many blocks of new sessions, and how many rounds in each."""

    blocks: int
    rounds: int


@dataclass
class Track:
    """All that a race needs; the second place is the baseline again, as its control."""

    paths: Sequence[Path]
    feed: Mapping[str, np.ndarray]
    threads: int
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(_SEED))

    def sessions(self) -> list[ort.InferenceSession]:
        """New sessions in random order, with gaps of random size between their memory."""
        shared = graph.file_bytes(self.paths[0]) > _SHARED_CONTROL_BYTES
        made: dict[int, ort.InferenceSession] = {}
        ballast = []
        for place in self.rng.permutation(len(self.paths)):
            if place == 1 and shared:
                continue
            ballast.append(np.ones(self.rng.integers(1, _BALLAST_BYTES), np.uint8))
            made[int(place)] = graph.session(self.paths[place], threads=self.threads)
        if shared:
            made[1] = made[0]
        return [made[place] for place in range(len(self.paths))]

    def round(self, sessions: Sequence[ort.InferenceSession]) -> np.ndarray:
        """Milliseconds of one inference each, in random order."""
        times = np.empty(len(sessions))
        for place in self.rng.permutation(len(sessions)):
            run = sessions[place].run
            start = time.perf_counter_ns()
            run(None, self.feed)
            times[place] = (time.perf_counter_ns() - start) / 1e6
        return times


def race(
    paths: Sequence[Path],
    feed: Mapping[str, np.ndarray],
    *,
    threads: int,
    quiet: Quiet,
    min_seconds: float = 1.0,
    max_seconds: float = 20.0,
    progress: Progress = _silent,
) -> list[Latency]:
    """Time every other path against the first: one Latency for each of `paths[1:]`.

    All run in turn in every round, the baseline twice: what its two sessions differ by is what
    chance can do, and only more than that is called faster or slower. Sessions are made anew
    several times. Rounds fill at least `min_seconds`; `max_seconds` cuts what is beyond the
    fewest rounds that a verdict takes.

    Raises:
        InvalidModel: a model does not load.
    """
    track = Track([paths[0], *paths], feed, threads)
    with quiet() as calm, _no_garbage_collection():
        times, undisturbed = _run(track, min_seconds, max_seconds, progress)
    control = ratio(times[0], times[1])
    shapes = {name: list(value.shape) for name, value in feed.items()}
    found = []
    for other in times[2:]:
        speedup = ratio(times[0], other)
        found.append(
            Latency(
                shapes=shapes,
                threads=threads,
                rounds=times[0].size,
                before=percentiles(times[0]),
                after=percentiles(other),
                speedup=speedup.value,
                interval=(speedup.low, speedup.high),
                verdict=verdict(speedup, control, calm=calm and undisturbed),
            )
        )
    return found


def _run(
    track: Track, min_seconds: float, max_seconds: float, progress: Progress
) -> tuple[np.ndarray, bool]:
    """Milliseconds (model, block, round), and whether other work kept off the cores.

    A block during which others used the cores is run again, up to as often as there are blocks.
    """
    started = time.perf_counter()
    plan = _plan(track, min_seconds, max_seconds)
    calm: list[np.ndarray] = []
    disturbed: list[np.ndarray] = []
    while len(calm) < plan.blocks and len(disturbed) < plan.blocks:
        before = Load.now()
        block = _block(track, plan.rounds)
        quiet = Load.now().others(before) <= BUSY_SHARE
        (calm if quiet else disturbed).append(block)
        done = max(len(calm), len(disturbed))
        progress(done / plan.blocks, f"timed {done * plan.rounds} rounds")
        late = time.perf_counter() - started > max_seconds
        if late and done >= _FEWEST_BLOCKS:
            break
    used = calm if len(calm) >= len(disturbed) else calm + disturbed
    return np.stack(used, axis=1), used is calm


def _plan(track: Track, min_seconds: float, max_seconds: float) -> Plan:
    """From one trial: enough rounds to fill the time, fewer blocks where loading is slow."""
    start = time.perf_counter()
    sessions = track.sessions()
    loading = time.perf_counter() - start
    _warm_up(track, sessions)
    start = time.perf_counter()
    track.round(sessions)
    a_round = max(time.perf_counter() - start, 1e-6)
    wanted = min(max(math.ceil(min_seconds / a_round), _ROUNDS), _MOST_ROUNDS)
    for blocks in range(_BLOCKS, _FEWEST_BLOCKS - 1, -1):
        rounds = math.ceil(wanted / blocks)
        if blocks * (loading + (rounds + _WARM_UP) * a_round) <= max_seconds:
            return Plan(blocks, rounds)
    left = max_seconds / _FEWEST_BLOCKS - loading
    return Plan(_FEWEST_BLOCKS, max(3, int(left / a_round) - _WARM_UP))


def _block(track: Track, rounds: int) -> np.ndarray:
    """Milliseconds (model, round) with new sessions."""
    sessions = track.sessions()
    _warm_up(track, sessions)
    return np.stack([track.round(sessions) for _ in range(rounds)], axis=1)


def _warm_up(track: Track, sessions: Sequence[ort.InferenceSession]) -> None:
    for _ in range(_WARM_UP):
        track.round(sessions)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Python's collector would run within some rounds and not in others."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
