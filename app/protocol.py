"""The server's side of a connection, which waits for nobody for ever: each holds a place."""

import asyncio
import socket
import struct

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.limits import SLOWEST_BYTES_PER_S


class PatientProtocol(H11Protocol):
    """Closes a connection that sends no whole head in time, or that does not take its answer.

    uvicorn itself limits only the time between an answer and the first byte after it.
    """

    head_seconds = 10.0
    taking_seconds = 60.0  # an answer of which less than this at the slowest pace is taken ends
    _deadline: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Whatever the client has not taken counts: a few bytes hold the place as well as many.
        transport.set_write_buffer_limits(high=0)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._stop_taking()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to watch a client that takes less than we could send."""
        super().pause_writing()
        self._expect_taking()

    def resume_writing(self) -> None:
        self._stop_taking()
        super().resume_writing()

    def _watch(self) -> None:
        """Allow so much time from the first byte of a head, or the opening, to its end."""
        if self.conn.their_state is not h11.IDLE:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.head_seconds, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expect_taking(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(self.taking_seconds, self._judge_taking, left)

    def _judge_taking(self, before: int) -> None:
        taken = before - self.transport.get_write_buffer_size()
        if taken < self.taking_seconds * SLOWEST_BYTES_PER_S:
            # To close it would wait for the client here; without this, in the kernel.
            connection = self.transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
            return
        self._expect_taking()

    def _stop_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None
