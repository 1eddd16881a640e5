"""python-multipart's push parser as a plain list of events for each chunk of the body."""

import logging
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.errors import Refusal

# It warns of every malformed body: strangers would fill the log with what we refuse anyway.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

HINT = "send multipart/form-data, as curl -F or an HTML form does"


@dataclass(frozen=True)
class PartBegin:
    """Headers of a part are complete. `filename` is None where the part is a text field."""

    name: str
    filename: str | None


@dataclass(frozen=True)
class PartData:
    data: bytes


@dataclass(frozen=True)
class PartEnd:
    pass


Event = PartBegin | PartData | PartEnd


class MultipartReader:
    """Feed it the body's chunks; each feed gives the events that became complete with it."""

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not boundary:
            raise Refusal("malformed_multipart", "Content-Type names no boundary", hint=HINT)
        self._events: list[Event] = []
        self._headers: dict[str, str] = {}
        self._header_name = self._header_value = b""
        self._ended = False
        try:
            self._parser = MultipartParser(boundary, self._callbacks())  # type: ignore[arg-type]
        except FormParserError as error:
            raise malformed(str(error)) from None

    def feed(self, chunk: bytes) -> list[Event]:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise malformed(str(error)) from None
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        """Refuse a body that stopped before its closing boundary."""
        if not self._ended:
            raise malformed("the body stops before its closing boundary")

    def _callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._on_part_begin,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": self._on_part_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }

    def _on_part_begin(self) -> None:
        self._headers = {}

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        name = self._header_name.decode("latin-1").lower()
        self._headers[name] = self._header_value.decode("latin-1")
        self._header_name = self._header_value = b""

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get("content-disposition"))
        name = options.get(b"name")
        if not name:
            raise malformed("a part has no name in its Content-Disposition")
        filename = options.get(b"filename")
        shown = None if filename is None else _text(filename)
        self._events.append(PartBegin(_text(name), shown))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(PartData(data[start:end]))

    def _on_part_end(self) -> None:
        self._events.append(PartEnd())

    def _on_end(self) -> None:
        self._ended = True


def _text(value: bytes) -> str:
    """Header text: UTF-8 as browsers and curl send it, whatever bytes there are."""
    return value.decode("utf-8", errors="replace")


def malformed(reason: str) -> Refusal:
    return Refusal("malformed_multipart", f"the form cannot be read: {reason}", hint=HINT)
