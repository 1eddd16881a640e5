"""R8: wrong requests with fixed seeds, sent to a service over plain sockets."""

import random
import re
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import httpx

from tests.fuzz import requests

KINDS: dict[str, Callable[[random.Random], bytes]] = {
    "model": requests.model,
    "zip": requests.zipped,
    "multipart": requests.multipart,
    "recipe": requests.recipes,
    "headers": requests.headers,
}
HESITATION_S = 1.0
PATIENCE_S = 20
STATUS = re.compile(rb"^HTTP/1.1 ([2-5]\d\d)", re.MULTILINE)  # not one of 100


def fuzz(port: int, *, number: int, first: int = 0) -> dict[str, object]:
    """Send so many requests; count the answers, and those that must never be.

    507 is one of a full disk or quota and 503 one of a full queue: neither is allowed here.
    """
    answers: Counter[str] = Counter()
    failures: list[str] = []
    slowest = 0.0, ""
    upload = announced(port)
    for seed in range(first, first + number):
        chance = random.Random(seed)  # noqa: S311 - to be repeated
        if seed % 6 == 5:
            kind, sent = "tus", requests.tus(chance, upload)
        else:
            kind = list(KINDS)[seed % 6]
            sent = KINDS[kind](chance)
        started = time.monotonic()
        status = answer(port, sent)
        slowest = max(slowest, (time.monotonic() - started, f"{kind} {seed}"))
        answers[status] += 1
        if status.startswith("5") or status == "silence":
            failures.append(f"{kind} {seed}: {status}")
        if kind == "tus" and status in ("204", "410", "404"):
            upload = announced(port)
    return {
        "requests": number,
        "answers": dict(sorted(answers.items())),
        "wrong": failures,
        "slowest": slowest,
    }


def announced(port: int) -> bytes:
    """The id of a new upload of 100 bytes."""
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": "100",
        "Upload-Metadata": "kind bW9kZWw=",
    }
    made = httpx.post(f"http://127.0.0.1:{port}/v1/uploads", headers=headers, timeout=60)
    return made.headers["location"].rpartition("/")[2].encode()


def answer(port: int, sent: bytes) -> str:
    """The status of the answer; `closed` where the connection ended without one.

    The server drops a client that says it has ended: that is said only to get an answer from
    one that waits for more than there is.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        with suppress(OSError):  # the server may have closed it already
            connection.sendall(sent)
        head = b""
        for patience in (HESITATION_S, PATIENCE_S):
            connection.settimeout(patience)
            try:
                while not (found := STATUS.search(head)) and (more := connection.recv(4096)):
                    head += more
            except TimeoutError:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)
                continue
            except ConnectionResetError:
                return "closed"
            return found[1].decode() if found else "closed"
    return "silence"


def left_behind(data_dir: Path, *, seconds: float = 5) -> list[str]:
    """Files that no record of an embedded service knows, once what was under way has ended."""
    deadline = time.monotonic() + seconds
    while (found := _unknown(data_dir)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def _unknown(data_dir: Path) -> list[str]:
    with closing(sqlite3.connect(data_dir / "modelpress.db")) as database:
        known = {row[0] for row in database.execute("SELECT key FROM artifacts")}
        announced = {row[0] for row in database.execute("SELECT id FROM uploads")}
    objects = data_dir / "objects"
    files = [path.relative_to(objects) for path in objects.rglob("*") if path.is_file()]
    return [
        str(path) for path in files if str(path) not in known and path.name not in announced
    ]
