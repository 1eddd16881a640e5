"""The bars of the web process, each a function that gives the figures of one JSON line."""

import hashlib
import http.client
import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.bars import wire
from tests.chaos.surroundings import role
from tests.fuzz.driver import left_behind
from tests.system.service import DIGITS, Service

MB = 1_000_000
Figures = dict[str, object]


def web(service: Service) -> int:
    """The process that answers."""
    return next(pid for pid in service.processes() if role(pid) == "web")


def port(service: Service) -> int:
    return int(service.client.base_url.port or 0)


def memory(service: Service, *, size: int, at_once: int, small: int) -> Figures:
    """R10, and the upload's half of R11: what the process grows by, and its speed."""
    pid, address = web(service), port(service)
    wire.send(address, "/v1/datasets", wire.pieces(MB), stated=MB)  # pools and caches are full
    form = size + len(wire.FORM_HEAD) + len(wire.FORM_TAIL)
    ways: dict[str, Callable[[], wire.Answer]] = {
        "raw": lambda: wire.send(address, "/v1/datasets", wire.pieces(size), stated=size),
        "form": lambda: wire.send(
            address, "/v1/datasets", wire.in_form(wire.pieces(size)),
            stated=form, Content_Type=wire.FORM,
        ),
        "tus": lambda: _resumable(service, size),
    }  # fmt: skip
    found: Figures = {"bar": "R10", "megabytes": size // MB}
    for name, upload in ways.items():
        grown, seconds, answers = _grown(pid, [upload])
        found |= {f"{name}_grew_mb": grown, f"{name}_mb_per_s": round(size / MB / seconds)}
        found[f"{name}_status"] = [answer.status for answer in answers]
        _discard(service, answers)
    several = [lambda: wire.send(address, "/v1/datasets", wire.pieces(small), stated=small)]
    grown, _, answers = _grown(pid, several * at_once)
    _discard(service, answers)
    return found | {"at_once": at_once, "at_once_grew_mb": grown}


def _resumable(service: Service, size: int) -> wire.Answer:
    """All of it in one request, as browsers' clients do; the answer with what it became."""
    told = {"Upload-Length": str(size), "Upload-Metadata": "kind ZGF0YXNldA=="}
    spoken = {"Tus-Resumable": "1.0.0"}
    made = service.client.post("/v1/uploads", headers=spoken | told).headers["location"]
    answer = wire.send(
        port(service), made, wire.pieces(size), stated=size,
        Tus_Resumable="1.0.0", Upload_Offset="0", X_HTTP_Method_Override="PATCH",
        Content_Type="application/offset+octet-stream",
    )  # fmt: skip
    address = service.client.head(made, headers=spoken).headers["location"]
    status = 201 if answer.status == 204 else answer.status
    return wire.Answer(status, answer.taken, {"id": address.rpartition("/")[2]})


def _grown(
    pid: int, uploads: list[Callable[[], wire.Answer]]
) -> tuple[float, float, list[wire.Answer]]:
    wire.reset_peak(pid)
    before, started = wire.memory_mb(pid, "VmRSS"), time.perf_counter()
    with ThreadPoolExecutor(len(uploads)) as threads:
        answers = list(threads.map(lambda upload: upload(), uploads))
    seconds = time.perf_counter() - started
    return round(wire.memory_mb(pid, "VmHWM") - before, 1), seconds, answers


def _discard(service: Service, answers: list[wire.Answer]) -> None:
    for answer in answers:
        service.client.delete(f"/v1/datasets/{answer.body['id']}")


def over_the_limit(service: Service, *, limit: int, times: int) -> Figures:
    """R12: bodies beyond the limit, stated before, stated with Expect, and chunked."""
    ways = {
        "expect": {"stated": 50 * limit, "Expect": "100-continue"},
        "stated": {"stated": 50 * limit},
        "chunked": {"stated": None},
    }
    found: Figures = {"bar": "R12", "limit": limit, "times": times}
    wrong: Counter[str] = Counter()
    for name, how in ways.items():
        answers = [
            wire.send(port(service), "/v1/models", wire.pieces(50 * limit), **how)  # type: ignore[arg-type]
            for _ in range(times)
        ]
        refused = [a.status == 413 and a.body["code"] == "payload_too_large" for a in answers]
        wrong[name] += refused.count(False)
        found[f"{name}_taken"] = max(answer.taken for answer in answers)
    return found | {"not_refused": sum(wrong.values()), "left": left_behind(service.data_dir)}


def aborts(service: Service, *, times: int) -> Figures:
    """R14: uploads that break off anywhere, raw, in a form and resumable; then what is left."""
    pid, address, chance = web(service), port(service), random.Random(14)  # noqa: S311
    _abort(address, 30, chance)
    _settled(service)
    files, resident = wire.open_files(pid), wire.memory_mb(pid, "VmRSS")
    _abort(address, times, chance)
    left = _settled(service)
    return {
        "bar": "R14",
        "aborts": times,
        "left": left,
        "files_open": [files, wire.open_files(pid)],
        "resident_mb": [round(resident, 1), round(wire.memory_mb(pid, "VmRSS"), 1)],
    }


def _settled(service: Service) -> list[str]:
    left = left_behind(service.data_dir, seconds=10)
    deadline = time.monotonic() + 5
    while wire.open_files(web(service)) > 40 and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _abort(address: int, times: int, chance: random.Random) -> None:
    for number in range(times):
        if number % 3 == 2:
            _abort_resumable(address, chance)
            continue
        kind = wire.FORM if number % 3 else "application/octet-stream"
        head = wire.FORM_HEAD if number % 3 else b""
        start = f"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        with socket.create_connection(("127.0.0.1", address)) as connection:
            connection.sendall(f"{start}Content-Length: 9000000\r\n\r\n".encode())
            connection.sendall(head + bytes(chance.randrange(3 * MB)))


def _abort_resumable(address: int, chance: random.Random) -> None:
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Length": "9000000",
        "Upload-Metadata": "kind ZGF0YXNldA==",
    }
    there = f"http://127.0.0.1:{address}"
    made = httpx.post(f"{there}/v1/uploads", headers=headers, timeout=60).headers["location"]
    start = f"PATCH {made} HTTP/1.1\r\nHost: localhost\r\nTus-Resumable: 1.0.0\r\n"
    kind = "Content-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
    with socket.create_connection(("127.0.0.1", address)) as connection:
        connection.sendall(f"{start}{kind}Content-Length: 9000000\r\n\r\n".encode())
        connection.sendall(bytes(chance.randrange(3 * MB)))
    while httpx.delete(there + made, headers=headers, timeout=60).status_code == 423:
        time.sleep(0.02)  # the server has not seen the end of it yet


def downloads(service: Service, *, times: int) -> Figures:
    """R15: downloads that break off anywhere and go on by Range, with the tag of the first."""
    job = service.wait(service.submit_digits())
    address, chance = job["links"]["model"], random.Random(15)  # noqa: S311
    whole = service.client.get(address)
    digest, size = hashlib.sha256(whole.content).hexdigest(), len(whole.content)
    equal = 0
    for _ in range(times):
        kept = b""
        while len(kept) < size:
            end = chance.randrange(len(kept), size) + 1
            kept += _broken_off(service, address, kept, end=end, tag=whole.headers["etag"])
        equal += hashlib.sha256(kept).hexdigest() == digest
    other = service.client.get(address, headers={"Range": "bytes=5-", "If-Range": '"old"'})
    beyond = service.client.get(address, headers={"Range": f"bytes={size}-"})
    known = service.client.get(address, headers={"If-None-Match": whole.headers["etag"]})
    return {
        "bar": "R15",
        "times": times,
        "equal": equal,
        "statuses": [other.status_code, beyond.status_code, known.status_code],
    }


def _broken_off(service: Service, address: str, kept: bytes, *, end: int, tag: str) -> bytes:
    """What comes of the rest before the connection is dropped at `end`."""
    connection = http.client.HTTPConnection("127.0.0.1", port(service), timeout=30)
    headers = {"Range": f"bytes={len(kept)}-", "If-Range": tag}
    connection.request("GET", address, headers=headers)
    try:
        return connection.getresponse().read(end - len(kept))
    finally:
        connection.close()


def one_key_many_posts(service: Service, *, rounds: int) -> Figures:
    """R17: the same request twenty times at once under one key; then another one."""
    model = (DIGITS / "digits.onnx").read_bytes()
    jobs, others, statuses = [], [], Counter[int]()

    def post(key: str, recipe: str) -> httpx.Response:
        return service.client.post(
            "/v1/jobs",
            files={"model": ("m.onnx", model)},
            data={"recipe": recipe},
            headers={"Idempotency-Key": key},
        )

    for number in range(rounds):
        with ThreadPoolExecutor(20) as threads:
            answers = list(
                threads.map(lambda _, key=f"k{number}": post(key, "prune-l1"), range(20))
            )
        statuses.update(answer.status_code for answer in answers)
        jobs.append(len({answer.json()["id"] for answer in answers}))
        others.append(post(f"k{number}", "int8").status_code)
        service.client.post(f"/v1/jobs/{answers[0].json()['id']}/cancel")
    return {"bar": "R17", "jobs": jobs, "other": others, "statuses": dict(statuses)}
