"""Listen to a child, watch it, and end it where it passes a limit."""

import contextlib
import os
import select
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker.isolation.ended import Cause, limit_in
from worker.isolation.messages import Lines, ProtocolError, encode
from worker.isolation.process import STDERR_BYTES, Process
from worker.isolation.seal import Seal
from worker.isolation.watch import Clock, data_bytes, exceeded, resident_bytes

Stop = Callable[[], str | None]

#: A flood of messages costs the child its time, not ours: no more than this is read at once.
READ_BYTES = 64 << 10
SECONDS_BETWEEN_READS = 0.02
SECONDS_BETWEEN_LOOKS = 0.5
TICK_SECONDS = 0.1
#: So close to its limit an allocation was refused: two stacks of threads have as much.
SCARCE_BYTES = 16 << 20


class Supervised:
    """One running child. `hear` gets each of its messages; `tick` is called all the time."""

    def __init__(
        self,
        process: Process,
        wanted: Seal,
        folder: Path,
        *,
        hear: Callable[[dict[str, Any]], None],
        stop: Stop,
        tick: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self.process, self.wanted = process, wanted
        self.clock = clock or Clock()  #: of the job: another of its children may run on it
        self.layers: Mapping[str, str] = {}
        self.verdict: Cause | None = None  #: why it was ended, if it was
        self.stopped_because: str | None = None
        self.output = b""
        self.peak_memory_bytes = 0  #: as far as looking every half second tells
        self._peak_data_bytes = 0
        self._folder = folder if wanted.writable else None
        self._hear, self._stop, self._tick = hear, stop, tick
        self._lines = Lines()
        self._open = {process.messages, process.output}
        self._looked = time.monotonic()
        self._begun = False

    def begin(self) -> None:
        """Tell the child how to seal itself, which it waits for; the first thing it is told."""
        self._begun = True
        self.answer(self.wanted.to_message())

    def run(self) -> None:
        """Until the child has ended, or has been ended."""
        try:
            if not self._begun:
                self.begin()
            while self.process.poll() is None and self.verdict is None:
                self._peak_data_bytes = max(self._peak_data_bytes, data_bytes(self.process.pid))
                self._read(TICK_SECONDS)
                self._tick()
                self.look()
        finally:
            self.process.end()
        self._drain()

    def limit_in(self, output: str) -> Cause | None:
        """The limit that it failed at, by what it said or by what it held."""
        limit = limit_in(output)
        return limit or (Cause.OUT_OF_MEMORY if self.short_of_memory else None)

    @property
    def short_of_memory(self) -> bool:
        """Whether it stood at its limit, where libraries fail in odd ways or crash."""
        limit = self.wanted.limits.memory_bytes
        return (
            self.peak_memory_bytes > 0.9 * limit or self._peak_data_bytes > limit - SCARCE_BYTES
        )

    def answer(self, message: Mapping[str, Any]) -> None:
        # A child that does not read its answers only hurts itself.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self.process.answers, encode(message))

    def _read(self, timeout: float) -> None:
        if not self._open:
            time.sleep(timeout)
            return
        poll = select.poll()
        for descriptor in self._open:
            poll.register(descriptor, select.POLLIN)
        for descriptor, _ in poll.poll(timeout * 1000):
            self._take(descriptor)
        time.sleep(SECONDS_BETWEEN_READS)

    def _take(self, descriptor: int) -> int:
        """Read what there is; at its end, stop listening."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return 0
        if not data:
            self._open.discard(descriptor)
        elif descriptor == self.process.output:
            self.output = (self.output + data)[-STDERR_BYTES:]
        else:
            self._understand(data)
        return len(data)

    def _understand(self, data: bytes) -> None:
        try:
            messages = self._lines.feed(data)
            for message in messages:
                if "sealed" in message and not self.layers:
                    self.layers = {str(k): str(v) for k, v in message["sealed"].items()}
                else:
                    self._hear(message)
        except ProtocolError:
            # No child of ours says such a thing: whoever speaks there has taken it over.
            self.verdict = Cause.CRASHED

    def look(self) -> None:
        """Ask whether it may go on, and see what it uses."""
        if time.monotonic() - self._looked < SECONDS_BETWEEN_LOOKS or self.verdict:
            return
        self._looked = time.monotonic()
        self.stopped_because = self._stop()
        if self.stopped_because is not None:
            self.verdict = Cause.CANCELED
            return
        whole = not self.layers.get("seccomp", "").startswith("ok")  # it can start others
        memory = resident_bytes(self.process.pid, whole_session=whole)
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
        self.verdict = exceeded(
            self.process.pid,
            self._folder,
            self.wanted.limits,
            clock=self.clock,
            memory=memory,
        )

    def _drain(self) -> None:
        """What the child said last, as far as the pipes hold it."""
        for descriptor in tuple(self._open):
            for _ in range(64):
                if self._take(descriptor) == 0:
                    break
