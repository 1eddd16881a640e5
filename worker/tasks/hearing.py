"""Does this worker still hear the broker? It may look alive and be deaf for ever."""

import time
from collections.abc import Callable

DEAF_EXIT = 70  #: whoever keeps the worker alive starts it again


class Hearing:
    """Tell whether jobs wait because the broker is away, or because this worker is deaf.

    `heard` counts the messages that came; `broker_answers` asks the broker.
    """

    def __init__(
        self,
        *,
        heard: Callable[[], int],
        broker_answers: Callable[[], bool],
        deaf_seconds: float,
    ) -> None:
        self._heard = heard
        self._broker_answers = broker_answers
        self._deaf_seconds = deaf_seconds
        self._count = heard()
        self._last = time.monotonic()
        self._missed_since: float | None = None
        self.in_vain = False  #: the latest job had to be found without a message

    def listen(self) -> None:
        """Called all the time: notes when messages come."""
        count = self._heard()
        if count != self._count:
            self._count, self._last = count, time.monotonic()
            self._missed_since, self.in_vain = None, False

    def silent_seconds(self) -> float:
        return time.monotonic() - self._last

    def missed(self) -> bool:
        """Note a job that waited without a message; True if that means that we are deaf."""
        self.in_vain = True
        if not self._broker_answers():
            self._missed_since = None  # then no message can come
            return False
        now = time.monotonic()
        self._missed_since = self._missed_since or now
        return now - self._missed_since > self._deaf_seconds
