"""R20: small jobs, polls and uploads for a long time; nothing may grow."""

import os
import time
from pathlib import Path
from statistics import quantiles

from tests.chaos.surroundings import Acknowledged, Figures, Record, offer_model, role
from tests.system.service import Service, descendants

MIB = 1 << 20
PATIENCE_SECONDS = 120
POLLS = 25


def soak(service: Service, record: Record, *, jobs: int) -> Figures:
    """Send, look at and delete so many models; what grew after the first quarter of them."""
    polls: list[float] = []
    for number in range(jobs):
        one = Acknowledged()
        one.add(offer_model(service))
        record.wait_for_the_end(one, seconds=PATIENCE_SECONDS)
        polls += [_poll(service, one.ids[0]) for _ in range(POLLS)]
        service.client.delete(f"/v1/models/{one.ids[0]}").raise_for_status()
        if number == jobs // 4:
            first, disk, since = _usage(service), _stored(service), time.monotonic()
    last, hours = _usage(service), (time.monotonic() - since) / 3600
    quarter = len(polls) // 4
    early, late = polls[:quarter], polls[-quarter:]
    return {
        "bar": "R20",
        "seconds": round(3600 * hours),
        "jobs": jobs,
        "mib_an_hour": {
            name: round((last[name][0] - first[name][0]) / MIB / hours, 1) for name in first
        },
        "more_files": {name: last[name][1] - first[name][1] for name in first},
        "stored_more_bytes": _stored(service) - disk,
        "wal_mib": round(_bytes(service.data_dir / "modelpress.db-wal") / MIB, 1),
        "poll_p99_ms": [round(1000 * quantiles(some, n=100)[-1], 1) for some in (early, late)],
        **record.figures(Acknowledged()),
    }


def _poll(service: Service, model: str) -> float:
    began = time.monotonic()
    service.client.get(f"/v1/models/{model}").raise_for_status()
    return time.monotonic() - began


def _usage(service: Service) -> dict[str, tuple[int, int]]:
    """Resident bytes and open files of web and worker, each with its processes."""
    found: dict[str, tuple[int, int]] = {"web": (0, 0), "worker": (0, 0)}
    for pid in descendants(service.process.pid):
        name = role(pid)
        if name in found:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            size = pages * os.sysconf("SC_PAGE_SIZE")
            found[name] = (found[name][0] + size, found[name][1] + files)
    return found


def _stored(service: Service) -> int:
    files = [path for path in (service.data_dir / "objects").rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files)


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
