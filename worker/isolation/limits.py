"""What a child may use, and the kernel's share of enforcing it."""

import os
import resource
import signal
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30

#: Address space beyond the memory limit: libraries, thread stacks and malloc arenas are mapped
#: but hardly touched (importing torch and onnxruntime alone maps 0.8 GB).
ADDRESS_SPACE_HEADROOM = 3 * GIB
#: Threads of one user, counted over the whole host: own user per slot, so own count per job.
THREADS = 512
OPEN_FILES = 256


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one job may use. `cpu_seconds` sums over cores; `disk_bytes` is of the folder."""

    wall_seconds: float
    cpu_seconds: float
    memory_bytes: int
    disk_bytes: int


def default_limits(
    model_bytes: int, *, wall_seconds: float = 3600, disk_bytes: int | None = None
) -> Limits:
    """Limits that fit a model: at most three quarters of the memory, less for a small one."""
    memory = min(usable_memory() * 3 // 4, 6 * model_bytes + 2 * GIB)
    return Limits(
        wall_seconds=wall_seconds,
        cpu_seconds=wall_seconds * cores(),
        memory_bytes=memory,
        disk_bytes=disk_bytes or 16 * model_bytes + 4 * GIB,
    )


def cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def usable_memory() -> int:
    """Bytes of memory of this machine, or of the container where that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cgroup = Path("/sys/fs/cgroup/memory.max")
    try:
        return min(total, int(cgroup.read_text()))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return total


def apply_limits(limits: Limits, *, input_bytes: int, own_user: bool) -> str:
    """Set the resource limits of this process; tells which could not be had."""
    address_space = limits.memory_bytes + ADDRESS_SPACE_HEADROOM + 2 * input_bytes
    wanted = {
        "CORE": 0,
        "NOFILE": OPEN_FILES,
        "FSIZE": limits.disk_bytes,
        "CPU": max(1, int(limits.cpu_seconds)),
        "DATA": limits.memory_bytes,
        # RLIMIT_DATA does not count shared anonymous mappings; the address space does.
        "AS": address_space,
    }
    if own_user:
        wanted["NPROC"] = THREADS
    missing = [name for name, value in wanted.items() if not _set(name, value)]
    return f"partly (without {', '.join(missing)})" if missing else "ok"


#: Whether a file of this process was cut off at its limit.
_cut: list[int] = []


def notice_cut_files() -> None:
    """Remember when a write passes the limit of files: C++ libraries go on as if it had not."""
    if hasattr(signal, "SIGXFSZ"):
        signal.signal(signal.SIGXFSZ, lambda number, _: _cut.append(number))


def file_was_cut() -> bool:
    """Whether that has happened."""
    return bool(_cut)


def _set(name: str, value: int) -> bool:
    """Lower one limit for good: what could be raised again would be none."""
    which = getattr(resource, f"RLIMIT_{name}")
    hard = resource.getrlimit(which)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    # SIGXCPU at the soft limit tells what happened; who ignores it is killed at the hard one.
    grace = 1 if name == "CPU" and hard == resource.RLIM_INFINITY else 0
    try:
        resource.setrlimit(which, (value, value + grace))
    except (OSError, ValueError):  # macOS knows these limits and refuses some
        return False
    return True
