"""Walk the tags of a protobuf message: no parsing, no allocation by what it claims."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
_VARINT_BYTES = 10
_MAX_FIELDS = 100_000  # a message with more is judged by these


class NotProtobuf(Exception):
    """These bytes are no protobuf message."""


class CutOff(Exception):
    """A field runs past the end of the message."""

    def __init__(self, field: "Field") -> None:
        super().__init__(field)
        self.field = field


@dataclass(frozen=True)
class Field:
    """One field: its number, wire type, value of a varint, and where its bytes lie."""

    number: int
    wire: int
    value: int
    start: int
    size: int


def fields(file: BinaryIO, start: int, end: int) -> Iterator[Field]:
    """Yield the fields between two offsets, reading only tags and lengths.

    Raises:
        NotProtobuf: a tag that no protobuf writer makes.
        CutOff: a length that runs past `end`.
    """
    for _ in range(_MAX_FIELDS):
        if start >= end:
            return
        field = _field(file, start, end)
        if field.start + field.size > end:
            raise CutOff(field)
        yield field
        start = field.start + field.size


def _field(file: BinaryIO, start: int, end: int) -> Field:
    file.seek(start)
    head = file.read(min(2 * _VARINT_BYTES, end - start))
    tag, used = _varint(head, 0)
    number, wire = tag >> 3, tag & 7
    if not 1 <= number < 2**29 or wire not in (VARINT, FIXED64, LENGTH, FIXED32):
        raise NotProtobuf
    if wire in _FIXED:
        return Field(number, wire, 0, start + used, _FIXED[wire])
    if used == len(head):
        raise CutOff(Field(number, wire, 0, end, 1))
    value, after = _varint(head, used)
    if wire == VARINT:
        return Field(number, wire, value, start + after, 0)
    return Field(number, wire, 0, start + after, value)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a base-128 number; answers it and the offset after it."""
    value = 0
    for index, byte in enumerate(data[at : at + _VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise NotProtobuf
