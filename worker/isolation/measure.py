"""Peak memory of a model: of a fresh, sealed child that runs it, less that of an empty one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from worker.isolation.messages import ProtocolError
from worker.isolation.process import EXIT, started
from worker.isolation.quiet import Quiet
from worker.isolation.seal import Seal
from worker.isolation.supervise import Stop, Supervised

PROGRAM = "from worker.trial import measure; code = measure()" + EXIT
WALL_SECONDS = 120
#: A report needs two, a search a few more; beyond that somebody only wants to keep us busy.
MEASUREMENTS = 64


class PeakMemory:
    """Measures models in a job's folder, for the child of that job."""

    #: Of a child that only loads onnxruntime: the same for every job of this process.
    _empty: int | None = None

    def __init__(self, wanted: Seal, folder: Path, *, stop: Stop, quiet: Quiet) -> None:
        limits = replace(wanted.limits, wall_seconds=WALL_SECONDS, disk_bytes=1 << 20)
        self._wanted = replace(wanted, writable=False, limits=limits)
        self._folder, self._stop, self._quiet = folder, stop, quiet
        self._left = MEASUREMENTS

    def of(self, message: Mapping[str, Any]) -> int | None:
        """Bytes, or None where the model did not run.

        Raises:
            ProtocolError: the message names something other than files of the job.
        """
        paths = [self.allowed(message[key]) for key in ("measure", "feed") if message.get(key)]
        self._left -= 1
        if self._left < 0:
            return None
        if PeakMemory._empty is None:
            PeakMemory._empty = self._run([])
        peak = self._run(paths)
        if peak is None or PeakMemory._empty is None:
            return None
        return max(0, peak - PeakMemory._empty)

    def _run(self, paths: list[str]) -> int | None:
        peaks: list[int] = []

        def hear(said: dict[str, Any]) -> None:
            if type(said.get("peak_memory_bytes")) is int:
                peaks.append(said["peak_memory_bytes"])

        with started(PROGRAM, self._folder, *paths) as process:
            self._quiet.processes.append(process)
            try:
                Supervised(
                    process,
                    self._wanted,
                    self._folder,
                    hear=hear,
                    stop=self._stop,
                    tick=self._quiet.step,
                ).run()
            finally:
                self._quiet.processes.remove(process)
        return peaks[0] if len(peaks) == 1 and peaks[0] > 0 else None

    def allowed(self, given: object) -> str:
        """A path in the folder, or one of the files outside that the job may read."""
        if given in self._wanted.readable:
            return str(given)
        path = PurePosixPath(given) if isinstance(given, str) else PurePosixPath("/")
        if path.is_absolute() or ".." in path.parts or "\0" in str(path):
            raise ProtocolError(f"measure names {str(given)[:100]!r}")
        return str(path)
