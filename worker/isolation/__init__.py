"""A child process for whatever touches an upload: limited, sealed, watched. Standard library only.

`run_child` runs one job and says how it ended; `enter` is the child's first call.
"""

from worker.isolation.channel import Channel, enter
from worker.isolation.ended import Cause, Ended
from worker.isolation.job import run_child
from worker.isolation.limits import Limits, default_limits
from worker.isolation.messages import STAGES, Progress, Request
from worker.isolation.results import UnsafeFile, open_result

__all__ = [
    "STAGES",
    "Cause",
    "Channel",
    "Ended",
    "Limits",
    "Progress",
    "Request",
    "UnsafeFile",
    "default_limits",
    "enter",
    "open_result",
    "run_child",
]
