"""kombu's filesystem transport, made safe against readers that meet a half-written message.

The original writes a message in place, so that a worker which looks in between reads nothing
and dies of it; and it takes a message by way of /tmp, which is often another disk.
"""

import json
import logging
import time
from pathlib import Path
from queue import Empty
from typing import Any
from uuid import uuid4

from kombu.transport import filesystem

logger = logging.getLogger(__name__)


class Channel(filesystem.Channel):
    """Messages appear by a rename, and are taken by an unlink: both are one step."""

    def _put(self, queue: str, payload: Any, **options: Any) -> None:  # type: ignore[override] # noqa: ANN401 - kombu's own two differ
        name = f"{time.time_ns():020d}_{uuid4().hex}.{queue}.msg"
        folder = Path(self.data_folder_out)
        # No queue matches a name that begins with a dot, so nobody sees this one.
        unseen = folder / f".{name}"
        unseen.write_text(json.dumps(payload))
        unseen.rename(folder / name)

    def _get(self, queue: str, timeout: float | None = None) -> Any:  # noqa: ANN401 - kombu's
        for path in sorted(Path(self.data_folder_in).iterdir()):
            if path.name.partition(".")[2] != f"{queue}.msg":
                continue
            try:
                with path.open("rb") as file:
                    path.unlink()
                    return json.loads(file.read().decode())
            except FileNotFoundError:
                continue  # another worker was faster
            except ValueError:
                logger.warning("message %s cannot be read and is dropped", path.name)
        raise Empty


class Transport(filesystem.Transport):
    """The same transport with the channel above."""

    Channel = Channel
