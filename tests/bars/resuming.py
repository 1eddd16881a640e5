"""Resumable uploads across the death of the web process, in the middle of a piece."""

import hashlib
import os
import random
import signal
import socket
import time

import httpx

from tests.bars.web import Figures, port, web
from tests.bars.wire import NUMPY
from tests.system.service import Service

SPOKEN = {"Tus-Resumable": "1.0.0"}
CHUNK = {"Content-Type": "application/offset+octet-stream"}


def resumed_uploads(service: Service, *, kills: int, size: int) -> Figures:
    """How many came whole; and how often less was there than had been acknowledged."""
    chance = random.Random(4)  # noqa: S311 - to be repeated
    whole, lost = 0, 0
    for _ in range(kills):
        content = NUMPY + chance.randbytes(size - len(NUMPY))
        with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
            told = {"Upload-Length": str(size), "Upload-Metadata": "kind ZGF0YXNldA=="}
            made = client.post("/v1/uploads", headers=SPOKEN | told).headers["location"]
            acknowledged = chance.randrange(1, size // 2)
            _send(client, made, content[:acknowledged], at=0)
        _break_off(service, made, content[acknowledged:], at=acknowledged, chance=chance)
        with httpx.Client(base_url=service.client.base_url, timeout=60) as client:
            lost += _offset(client, made) < acknowledged
            address = _go_on(client, made, content)
            sha256 = client.get(address).json()["sha256"]
            whole += sha256 == hashlib.sha256(content).hexdigest()
            client.delete(address)
    return {"bar": "tus", "kills": kills, "whole": whole, "less_than_acknowledged": lost}


def _send(client: httpx.Client, address: str, data: bytes, *, at: int) -> httpx.Response:
    headers = SPOKEN | CHUNK | {"Upload-Offset": str(at)}
    answer = client.patch(address, content=data, headers=headers)
    assert answer.status_code == 204, answer.text
    return answer


def _offset(client: httpx.Client, address: str) -> int:
    return int(client.head(address, headers=SPOKEN).headers["upload-offset"])


def _go_on(client: httpx.Client, address: str, content: bytes) -> str:
    """Send the rest, as clients do: a while later where the broken request still comes in.

    The next process may take it: its connection waited, and was not the dead one's yet.
    """
    deadline = time.monotonic() + 30
    while True:
        stands = _offset(client, address)
        headers = SPOKEN | CHUNK | {"Upload-Offset": str(stands)}
        answer = client.patch(address, content=content[stands:], headers=headers)
        if answer.status_code not in (409, 423):
            assert answer.status_code == 204, answer.text
            return answer.headers["location"]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _break_off(
    service: Service, address: str, rest: bytes, *, at: int, chance: random.Random
) -> None:
    """Kill the web process while a piece is on its way."""
    lines = [f"PATCH {address} HTTP/1.1", "Host: localhost", f"Content-Length: {len(rest)}"]
    said = SPOKEN | CHUNK | {"Upload-Offset": str(at)}
    lines += [f"{name}: {value}" for name, value in said.items()]
    with socket.create_connection(("127.0.0.1", port(service)), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        connection.sendall(rest[: chance.randrange(len(rest))])
        time.sleep(chance.random() * 0.05)
        os.kill(web(service), signal.SIGKILL)
