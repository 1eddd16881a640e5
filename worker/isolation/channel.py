"""The child's end: seal first, then speak with the supervisor."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from worker.isolation.ended import EXIT_UNSEALED
from worker.isolation.limits import notice_cut_files
from worker.isolation.messages import (
    MESSAGE_CHARACTERS,
    Request,
    encode,
    read_line,
)
from worker.isolation.seal import Seal, seal

#: More often nobody looks: the record is written once a second.
SECONDS_BETWEEN_PROGRESS = 0.1
#: To wait for quiet; the supervisor may have less.
MOST_PATIENCE = 3600.0


class Channel:
    """Messages to the supervisor, and its answers. Progress never falls."""

    def __init__(self, folder: Path, answers: int, messages: int) -> None:
        self.folder = folder
        self._answers = answers
        self._messages = messages
        self._share = 0.0
        self._stage = ""
        self._told = float("-inf")
        self.deadline = float("inf")
        """The `time.monotonic()` at which the job should end: nothing is waited for longer."""

    def progress(self, stage: str, share: float, message: str) -> None:
        self._share = min(1.0, max(self._share, share))
        now = time.monotonic()
        if stage == self._stage and now - self._told < SECONDS_BETWEEN_PROGRESS:
            return
        self._stage, self._told = stage, now
        told = {"stage": stage, "share": self._share, "message": message[:MESSAGE_CHARACTERS]}
        self._send({"progress": told})

    def measure(self, path: Path, feed: Path | None = None) -> int | None:
        """Peak memory, in bytes, of a fresh process that loads and runs this model once.

        `feed` is an .npz in the folder, its keys the input names behind one character; without
        it every input is as small as the model allows.
        """
        question = {"measure": self._named(path)}
        if feed is not None:
            question["feed"] = self._named(feed)
        peak = self._ask(question).get("peak_memory_bytes")
        return peak if isinstance(peak, int) else None

    def score(self, path: Path) -> list[float]:
        """What the user's own metric, which runs outside, says of a model file."""
        found = self._ask({"score": self._named(path)}).get("scores")
        return [float(value) for value in found] if isinstance(found, list) else []

    def _named(self, path: Path) -> str:
        inside = path.is_relative_to(self.folder)
        return str(path.relative_to(self.folder) if inside else path)

    @contextmanager
    def quiet(self) -> Iterator[bool]:
        """Alone on the host while inside; yields False where that could not be had."""
        wait = min(MOST_PATIENCE, max(0.0, self.deadline - time.monotonic()) / 4)
        had = self._ask({"quiet": "enter", "seconds": wait}).get("quiet") is True
        try:
            yield had
        finally:
            self._ask({"quiet": "leave"})

    def request(self) -> Request:
        return Request.from_json((self.folder / "request.json").read_bytes())

    def task(self) -> dict[str, Any]:
        """What to check, once there is something."""
        return self._ask({"ready": True})

    def tell(self, **message: object) -> None:
        self._send(message)

    def _ask(self, message: Mapping[str, object]) -> dict[str, Any]:
        self._send(message)
        return read_line(self._answers)

    def _send(self, message: Mapping[str, object]) -> None:
        rest = encode(message)
        while rest:
            rest = rest[os.write(self._messages, rest) :]


def enter(arguments: list[str]) -> Channel:
    """Seal this process as its supervisor says, then open the channel.

    Raises:
        SystemExit: a layer that is required cannot be had; the supervisor knows which.
    """
    folder, answers, messages = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    channel = Channel(folder, answers, messages)
    wanted = Seal.from_message(read_line(answers))
    layers = seal(wanted, folder)
    notice_cut_files()
    channel.tell(sealed=layers)
    if wanted.lacks(layers):
        raise SystemExit(EXIT_UNSEALED)
    return channel
