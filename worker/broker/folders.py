"""kombu's filesystem transport, made safe against readers that meet a half-written message.

The original writes a message in place, so that a worker which looks in between reads nothing and
dies of it; and it takes a message by way of /tmp, which is often another disk.
"""

import logging
import time
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

from kombu.transport import filesystem
from kombu.utils.json import dumps, loads

logger = logging.getLogger(__name__)


class Channel(filesystem.Channel):  # type: ignore[misc] # kombu has no types
    """Messages appear by a rename, and are taken by an unlink: both are one step."""

    def _put(self, queue: str, payload: Any, **options: Any) -> None:  # noqa: ANN401 - kombu's
        name = f"{time.time_ns():020d}_{uuid4().hex}.{queue}.msg"
        folder = Path(self.data_folder_out)
        # No queue matches a name that begins with a dot, so nobody sees this one.
        unseen = folder / f".{name}"
        unseen.write_text(dumps(payload))
        unseen.rename(folder / name)

    def _get(self, queue: str) -> Any:  # noqa: ANN401 - kombu's
        for path in sorted(Path(self.data_folder_in).iterdir()):
            if path.name.partition(".")[2] != f"{queue}.msg":
                continue
            try:
                with path.open("rb") as file:
                    path.unlink()
                    return loads(file.read().decode())
            except FileNotFoundError:
                continue  # another worker was faster
            except ValueError:
                logger.warning("message %s cannot be read and is dropped", path.name)
        raise Empty


class Transport(filesystem.Transport):  # type: ignore[misc] # kombu has no types
    """The same transport with the channel above."""

    Channel = Channel
