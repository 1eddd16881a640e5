"""Uploads over plain sockets, so that a bar can count bytes and stop where it likes."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PIECE = 1_000_000
NUMPY = b"\x93NUMPY"  # enough to be taken for data
FORM = "multipart/form-data; boundary=b"
FORM_HEAD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.npy"\r\n\r\n'
FORM_TAIL = b"\r\n--b--\r\n"


@dataclass(frozen=True)
class Answer:
    status: int
    taken: int  # bytes that the server's socket took of the body
    body: dict[str, object]


def pieces(size: int) -> Iterator[bytes]:
    yield NUMPY
    left = size - len(NUMPY)
    while left > 0:
        yield bytes(min(PIECE, left))
        left -= PIECE


def in_form(body: Iterator[bytes]) -> Iterator[bytes]:
    yield FORM_HEAD
    yield from body
    yield FORM_TAIL


def send(
    port: int, path: str, body: Iterator[bytes], *, stated: int | None, **headers: str
) -> Answer:
    """Send a body until it ends or is refused; `stated` None is chunked.

    With `Expect`, nothing is sent before the server asks for it.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", path)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if stated is None:
        connection.putheader("Transfer-Encoding", "chunked")
    else:
        connection.putheader("Content-Length", str(stated))
    connection.endheaders()
    taken = 0
    if "Expect" not in headers or _is_asked_for(connection.sock):
        with suppress(BrokenPipeError, ConnectionResetError):
            for piece in body:
                framed = piece if stated is not None else b"%x\r\n%s\r\n" % (len(piece), piece)
                connection.send(framed)
                taken += len(piece)
            if stated is None:
                connection.send(b"0\r\n\r\n")
    try:
        response = connection.getresponse()
        return Answer(response.status, taken, json.loads(response.read() or b"{}"))
    finally:
        connection.close()


def _is_asked_for(connection: socket.socket) -> bool:
    return connection.recv(12, socket.MSG_PEEK).endswith(b"100")


def memory_mb(pid: int, kind: str) -> float:
    """A process's memory: VmRSS now, VmHWM its peak since `reset_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
