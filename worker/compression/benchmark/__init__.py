"""Time and memory, measured so that the figure can be believed."""

from worker.compression.benchmark.feeds import timed_feeds
from worker.compression.benchmark.machine import environment, runs_here
from worker.compression.benchmark.measures import Latency, LatencyVerdict, Percentiles
from worker.compression.benchmark.memory import (
    load_and_run,
    peak_memory_of_run,
    peak_memory_of_self,
    reset_peak_memory,
)
from worker.compression.benchmark.profiling import Kernel, int8_share, profile
from worker.compression.benchmark.quiet import Quiet, host_quiet
from worker.compression.benchmark.racing import race
from worker.compression.benchmark.size import compressed_bytes

__all__ = [
    "Kernel",
    "Latency",
    "LatencyVerdict",
    "Percentiles",
    "Quiet",
    "compressed_bytes",
    "environment",
    "host_quiet",
    "int8_share",
    "load_and_run",
    "peak_memory_of_run",
    "peak_memory_of_self",
    "profile",
    "race",
    "reset_peak_memory",
    "runs_here",
    "timed_feeds",
]
