"""R11: status requests a second over the real route, with a key and the check of the owner.

    python -m benchmarks.http_load [SECONDS] [CONNECTIONS]

Prints two JSON lines: as fast as the connections go, and at 1,000 requests a second, each timed
from the moment it was due. Starts a service of its own; the client shares the machine with it.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.servers import free_port, stop, wait_for_port

DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"
RATE = 1000


async def poll(
    port: int, request: bytes, until: float, times: list[float], *, every: float, first: float
) -> None:
    """Ask again and again over one connection, `every` so many seconds; 0 is at once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    due = first
    while time.perf_counter() < until:
        if every:
            await asyncio.sleep(max(0, due - time.perf_counter()))
        started = due if every else time.perf_counter()
        due += every
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(head.decode())
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        times.append(time.perf_counter() - started)
    writer.close()


async def load(
    port: int, request: bytes, *, seconds: float, connections: int, rate: int = 0
) -> list[float]:
    times: list[float] = []
    start = time.perf_counter() + 0.1
    every = connections / rate if rate else 0.0
    polls = [
        poll(
            port,
            request,
            start + seconds,
            times,
            every=every,
            first=start + number * every / connections,
        )
        for number in range(connections)
    ]
    await asyncio.gather(*polls)
    return sorted(times)


def main(seconds: float = 10, connections: int = 32) -> None:
    with tempfile.TemporaryDirectory() as folder:
        commands = Path(sys.executable).parent
        key = subprocess.run(
            [commands / "modelpress", "keys", "create", "load", "--data-dir", folder],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        port = free_port()
        environment = {**os.environ, "MODELPRESS_MAX_OWNER_REQUESTS_PER_SECOND": "0"}
        command = [commands / "modelpress", "serve", "--port", str(port), "--data-dir", folder]
        server = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        try:
            wait_for_port(server, port)
            for line in measured(port, key, seconds=seconds, connections=connections):
                print(json.dumps(line), flush=True)
        finally:
            stop(server, seconds=40)


def measured(
    port: int, key: str, *, seconds: float, connections: int
) -> Iterator[dict[str, object]]:
    address, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Bearer {key}"}
    files = {"model": ("m.onnx", DIGITS.read_bytes())}
    data = {"recipe": "prune-l1"}
    with httpx.Client(base_url=address, headers=headers, timeout=60) as client:
        job_id = client.post("/v1/jobs", files=files, data=data).json()["id"]
        while client.get(f"/v1/jobs/{job_id}").json()["finished_at"] is None:
            time.sleep(0.2)
    request = (
        f"GET /v1/jobs/{job_id} HTTP/1.1\r\n"
        f"Host: localhost\r\nAuthorization: Bearer {key}\r\n\r\n"
    ).encode()
    asyncio.run(load(port, request, seconds=2, connections=connections))
    for rate in (0, RATE):
        how = load(port, request, seconds=seconds, connections=connections, rate=rate)
        times = asyncio.run(how)
        yield {
            "bench": "http_load",
            "bar": "R11 status",
            "connections": connections,
            "asked_per_second": rate or "any",
            "requests_per_second": round(len(times) / seconds),
            "p50_ms": round(1000 * times[len(times) // 2], 1),
            "p99_ms": round(1000 * times[int(len(times) * 0.99)], 1),
        }


if __name__ == "__main__":
    main(*(float(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 2 else ())
