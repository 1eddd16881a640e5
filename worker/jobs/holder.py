"""Who holds a lease, so that a worker on the same host can tell at once that it is dead.

A process is named by the boot and the process namespace it lives in, its number and its start:
numbers are used again, and two containers have the same ones.
"""

import os
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


def current_holder() -> str:
    """Name this process; where the system does not tell enough, by its number alone."""
    pid = os.getpid()
    return f"{_place()}/{pid}/{_start(pid) or 0}"


def is_gone(holder: str | None) -> bool:
    """Tell whether a holder is certainly dead; False where that cannot be known from here."""
    parts = (holder or "").split("/")
    if len(parts) != 3 or not parts[0] or parts[0] != _place():
        return False
    return _start(int(parts[1])) != int(parts[2])


def _place() -> str:
    try:
        return f"{_BOOT_ID.read_text().strip()}.{_NAMESPACE.stat().st_ino}"
    except OSError:
        return ""


def _start(pid: int) -> int | None:
    """Read when a process started, in clock ticks since boot; None if it is dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, so count from its end: state is the first.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
