"""A child process for whatever touches an upload: limited, sealed, watched.

Standard library only. `run_child` runs one job and says how it ended; `enter` is the child's
first call.
"""

from worker.isolation.channel import Channel, enter
from worker.isolation.ended import Cause, Ended, limit_of, problem
from worker.isolation.folders import remove_folder
from worker.isolation.job import Score, run_child
from worker.isolation.limits import Limits, default_limits, file_was_cut
from worker.isolation.messages import STAGES, Progress, Request
from worker.isolation.privileges import die_with_parent
from worker.isolation.quiet import MEASURING_LOCK
from worker.isolation.results import UnsafeFile, open_result
from worker.isolation.seal import missing_layers
from worker.isolation.selftest import SelfTest, layers, self_test

__all__ = [
    "MEASURING_LOCK",
    "STAGES",
    "Cause",
    "Channel",
    "Ended",
    "Limits",
    "Progress",
    "Request",
    "Score",
    "SelfTest",
    "UnsafeFile",
    "default_limits",
    "die_with_parent",
    "enter",
    "file_was_cut",
    "layers",
    "limit_of",
    "missing_layers",
    "open_result",
    "problem",
    "remove_folder",
    "run_child",
    "self_test",
]
