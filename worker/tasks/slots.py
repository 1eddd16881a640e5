"""How many jobs one worker runs at a time, whichever of its processes starts them."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator


class Slots:
    """A file whose byte n is locked by the process that runs a job in slot n.

    So a slot is free again as soon as its process is dead, however it died. Made before the
    pool forks; a process that is started otherwise gets the descriptor.
    """

    def __init__(self, count: int, descriptor: int | None = None) -> None:
        self.count = count
        self.descriptor = _file() if descriptor is None else descriptor

    @contextlib.contextmanager
    def taken(self) -> Iterator[int | None]:
        """Hold a slot inside the block; None where all are taken."""
        number = self._take()
        try:
            yield number
        finally:
            if number is not None:
                fcntl.lockf(self.descriptor, fcntl.LOCK_UN, 1, number)

    def _take(self) -> int | None:
        for number in range(self.count):
            with contextlib.suppress(BlockingIOError):
                fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                return number
        return None


def _file() -> int:
    """An open file without a name."""
    descriptor, path = tempfile.mkstemp(prefix="modelpress-slots-")
    os.unlink(path)  # noqa: PTH108 - mkstemp gives a string
    return descriptor
