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
from worker.compression.benchmark.quiet import BUSY_SHARE, Load, Quiet, others_in
from worker.compression.benchmark.statistics import percentiles, ratio, verdict

Progress = Callable[[float, str], None]

_BLOCKS, _FEWEST_BLOCKS = 8, 3
_ROUNDS, _FEWEST_ROUNDS, _MOST_ROUNDS = 24, 2, 4000
_WARM_UP, _LONG_SECONDS = 3, 0.5
# Above this a second session of the baseline would cost too much memory.
_SHARED_CONTROL_BYTES = 256 << 20
# Files of one race together: each becomes a session, all of them at a time.
_GROUP_BYTES = 1 << 30
# With less time than this a race that needs more is only a glimpse, and bears no verdict.
_LEAST_SECONDS = 4.0
_BALLAST_BYTES = 1 << 20
_UNQUIET_SECONDS = 2.0
_SEED = 0


def _silent(share: float, message: str) -> None:
    """Nobody asked."""


@dataclass(frozen=True)
class Plan:
    """How many blocks of new sessions, and how many rounds in each after those that warm up."""

    blocks: int
    rounds: int
    warm_up: int


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
    min_seconds: float = 1.5,
    max_seconds: float = 20.0,
    progress: Progress = _silent,
) -> list[Latency]:
    """Time every other path against the first: one Latency for each of `paths[1:]`.

    All run in turn in every round, the baseline twice: what its two sessions differ by is what
    chance can do, and only more than that is called faster or slower. Sessions are made anew
    several times. Rounds fill at least `min_seconds`; `max_seconds` cuts what is beyond the
    fewest rounds that a verdict takes, or where it is very short, the verdict: `unreliable`.

    Raises:
        InvalidModel: a model does not load.
    """
    found: list[Latency] = []
    tracks = [Track([paths[0], paths[0], *group], feed, threads) for group in _groups(paths)]
    with quiet() as calm, _no_garbage_collection():
        # Without quiet the figures are no proof, however long they are taken.
        longest = max_seconds if calm else min(max_seconds, _UNQUIET_SECONDS)
        for number, track in enumerate(tracks):
            tell = _part(progress, number, len(tracks))
            times, undisturbed = _run(track, min_seconds, longest, tell)
            enough = times.shape[1] >= _FEWEST_BLOCKS
            found += _judged(track, times, calm=calm and undisturbed and enough)
    return found


def _part(progress: Progress, number: int, parts: int) -> Progress:
    return lambda share, message: progress((number + share) / parts, message)


def _groups(paths: Sequence[Path]) -> list[list[Path]]:
    """The paths after the first, in groups whose sessions fit into memory together."""
    groups: list[list[Path]] = [[]]
    taken = 0
    for path in paths[1:]:
        size = graph.file_bytes(path)
        if groups[-1] and taken + size > _GROUP_BYTES:
            groups.append([])
            taken = 0
        groups[-1].append(path)
        taken += size
    return groups


def _judged(track: Track, times: np.ndarray, *, calm: bool) -> list[Latency]:
    control = ratio(times[0], times[1])
    found = []
    for other in times[2:]:
        speedup = ratio(times[0], other)
        found.append(
            Latency(
                shapes={name: list(value.shape) for name, value in track.feed.items()},
                threads=track.threads,
                rounds=times[0].size,
                before=percentiles(times[0]),
                after=percentiles(other),
                speedup=speedup.value,
                interval=(speedup.low, speedup.high),
                verdict=verdict(speedup, control, calm=calm),
            )
        )
    return found


def _run(
    track: Track, min_seconds: float, max_seconds: float, progress: Progress
) -> tuple[np.ndarray, bool]:
    """Milliseconds (model, block, round), and whether other work kept off the cores.

    A block during which others used the cores is run again, up to as often as there are blocks.
    Blocks can be too short for the host's clock to tell, so they are judged together as well.
    """
    started = time.perf_counter()
    plan = _plan(track, min_seconds, max_seconds)
    calm: list[np.ndarray] = []
    disturbed: list[np.ndarray] = []
    spans: list[tuple[Load, Load]] = []
    while len(calm) < plan.blocks and len(disturbed) < plan.blocks:
        before = Load.now()
        block = _block(track, plan)
        span = before, Load.now()
        if others_in([span]) <= BUSY_SHARE:
            calm.append(block)
            spans.append(span)
        else:
            disturbed.append(block)
        done = max(len(calm), len(disturbed))
        progress(done / plan.blocks, f"timed {done * plan.rounds} rounds")
        late = time.perf_counter() - started > max_seconds
        if late and done >= _FEWEST_BLOCKS:
            break
    undisturbed = len(calm) >= len(disturbed)
    used = calm if undisturbed else calm + disturbed
    return np.stack(used, axis=1), undisturbed and others_in(spans) <= BUSY_SHARE


def _plan(track: Track, min_seconds: float, max_seconds: float) -> Plan:
    """From one trial: enough rounds to fill the time, fewer blocks where loading is slow."""
    start = time.perf_counter()
    sessions = track.sessions()
    loading = time.perf_counter() - start
    warm_up, a_round = _trial(track, sessions)
    # `min_seconds` is for one result: baseline, control and itself.
    wanted = math.ceil(min_seconds * len(track.paths) / 3 / a_round)
    wanted = min(max(wanted, _ROUNDS), _MOST_ROUNDS)
    for blocks in range(_BLOCKS, _FEWEST_BLOCKS - 1, -1):
        rounds = math.ceil(wanted / blocks)
        if blocks * (loading + (rounds + warm_up) * a_round) <= max_seconds:
            return Plan(blocks, rounds, warm_up)
    left = max_seconds / _FEWEST_BLOCKS - loading
    rounds = int(left / a_round) - warm_up
    if rounds < _FEWEST_ROUNDS and max_seconds < _LEAST_SECONDS:
        return Plan(1, _FEWEST_ROUNDS, 1)
    return Plan(_FEWEST_BLOCKS, max(_FEWEST_ROUNDS, rounds), warm_up)


def _trial(track: Track, sessions: Sequence[ort.InferenceSession]) -> tuple[int, float]:
    """Rounds that it takes to warm up, and the seconds of one that nothing interrupted."""
    seconds: list[float] = []
    while len(seconds) < _WARM_UP and (not seconds or seconds[-1] < _LONG_SECONDS):
        start = time.perf_counter()
        track.round(sessions)
        seconds.append(max(time.perf_counter() - start, 1e-6))
    return len(seconds), min(seconds)


def _block(track: Track, plan: Plan) -> np.ndarray:
    """Milliseconds (model, round) with new sessions."""
    sessions = track.sessions()
    for _ in range(plan.warm_up):
        track.round(sessions)
    return np.stack([track.round(sessions) for _ in range(plan.rounds)], axis=1)


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
