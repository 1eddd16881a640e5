"""How an upload grows between its requests, whatever it lies on."""

from contextlib import AbstractContextManager
from typing import Protocol

from app.errors import Refusal
from worker.jobs import Announced
from worker.objects import Incoming


class Appending(Protocol):
    """The bytes of one request on their way. Its methods wait for disks and stores."""

    @property
    def at(self) -> int:
        """Bytes of the upload that are there, those of this request included."""
        ...

    def write(self, batch: bytes) -> None: ...

    def keep(self) -> None:
        """Make safe what was written: it will be there whatever dies.

        Raises:
            OffsetConflict: another request was faster.
        """
        ...

    def drop(self) -> None:
        """Forget what was written since it was last kept."""
        ...


class Growth(Protocol):
    """Where uploads grow. What it tells to have is safe."""

    def begin(self, upload_id: str) -> None: ...

    def offset(self, upload: Announced) -> int:
        """How many bytes are safe.

        Raises:
            Refusal: files_gone.
        """
        ...

    def append(self, upload: Announced) -> AbstractContextManager[Appending]:
        """Take more bytes.

        Raises:
            Refusal: upload_locked or files_gone.
        """
        ...

    def whole(self, upload: Announced) -> Incoming:
        """All of an upload that is complete, to be kept as an object.

        Raises:
            Refusal: files_gone.
        """
        ...

    def remove(self, upload_id: str) -> None:
        """Remove what has arrived."""
        ...

    def sweep(self, *, before: float) -> None:
        """Remove what lies on this host since a time and belongs to nothing."""
        ...


def gone() -> Refusal:
    return Refusal("files_gone", "what was sent of this upload is gone", hint="begin again")
