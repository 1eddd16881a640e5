"""A zip that is the same bytes for the same files: fixed times, fixed order, streamed."""

import hashlib
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Self

DEFLATED_BELOW = 2 << 30
"""Larger files are stored: packing them would take minutes."""
WORTH_DEFLATING = 0.9
"""Weights rarely shrink; only a file that does, by zstd, is deflated."""
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX, _MODE = 3, 0o644 << 16


class Packing:
    """An open bundle; `close` adds the checksums of what was added."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        self._sums: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._write("SHA256SUMS", ["".join(self._sums).encode()])
        self._zip.close()

    def add_text(self, name: str, text: str) -> None:
        content = text.encode()
        self._sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
        self._write(name, [content])

    def add_file(self, name: str, path: Path, *, deflate: bool = True) -> None:
        """A file, copied in pieces."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            size = path.stat().st_size
            with self._open(name, deflate=deflate and size < DEFLATED_BELOW, size=size) as to:
                shutil.copyfileobj(file, to, 1 << 20)
        self._sums.append(f"{sha256}  {name}\n")

    def _write(self, name: str, pieces: Iterable[bytes]) -> None:
        with self._open(name, deflate=True, size=0) as to:
            for piece in pieces:
                to.write(piece)

    def _open(self, name: str, *, deflate: bool, size: int) -> IO[bytes]:
        info = zipfile.ZipInfo(name, _TIME)
        info.create_system, info.external_attr = _UNIX, _MODE
        info.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
        return self._zip.open(info, "w", force_zip64=size >= DEFLATED_BELOW)
