"""Bytes of a model as a download."""

from pathlib import Path

import zstandard

from worker.compression import graph
from worker.compression.errors import InvalidModel

_LEVEL = 3


class _Counter:
    """A sink that keeps only how much was written."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return len(data)


def compressed_bytes(path: Path) -> int:
    """Size after zstd, level 3, external data included; read in pieces."""
    counter = _Counter()
    for part in (path, *_external(path)):
        with part.open("rb") as file:
            # The counter has all of a file that copy_stream uses.
            zstandard.ZstdCompressor(_LEVEL).copy_stream(file, counter)  # type: ignore[arg-type]
    return counter.bytes


def _external(path: Path) -> list[Path]:
    try:
        return list(graph.external_files(path))
    except InvalidModel:
        # An upload of another format, such as TorchScript, is one file.
        return []
