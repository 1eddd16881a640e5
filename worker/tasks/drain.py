"""Tells the processes of one worker that it is being stopped.

The main process gets the signal, its pool children hold the jobs: a page of memory that all of
them share carries the moment after which jobs are handed back.
"""

import mmap
import struct
import time

_MOMENT = struct.Struct("d")  # CLOCK_MONOTONIC, the same in all processes of a host; 0 is never


class Drain:
    """Made before the pool forks."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)

    def begin(self, *, grace_seconds: float) -> None:
        """Take no further jobs, and hand back the running ones after a while; inf is never."""
        self._page[: _MOMENT.size] = _MOMENT.pack(time.monotonic() + grace_seconds)

    def begun(self) -> bool:
        return self._moment() > 0

    def due(self) -> bool:
        """Whether running jobs are to be handed back now."""
        return 0 < self._moment() <= time.monotonic()

    def _moment(self) -> float:
        moment: float = _MOMENT.unpack(self._page[: _MOMENT.size])[0]
        return moment
