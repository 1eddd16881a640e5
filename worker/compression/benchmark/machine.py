"""The CPU that measurements were made on."""

import math
import os
import platform
from collections.abc import Iterator
from functools import cache
from pathlib import Path

_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8",
    "asimd", "neon", "asimddp", "i8mm", "sve",
)  # fmt: skip
_VNNI = {"avx512_vnni", "avx_vnni", "amx_int8"}
_ARM = ("aarch64", "arm64")


@cache
def environment() -> tuple[str, list[str], int]:
    """CPU name, its flags that matter to int8, and physical cores that this process may use."""
    processors = list(_processors())
    first = processors[0] if processors else {}
    name = first.get("model name") or platform.processor() or platform.machine()
    stated = set((first.get("flags") or first.get("Features") or "").split())
    return name, [flag for flag in _FLAGS if flag in stated], _cores(processors)


def runs_here(cpu: str) -> bool:
    """Whether a target (`auto`, `x86-vnni`, `x86-avx2`, `arm64`) is this machine."""
    flags = set(environment()[1])
    if cpu == "auto":
        return True
    if cpu == "arm64":
        return platform.machine().lower() in _ARM
    if cpu == "x86-vnni":
        return bool(flags & _VNNI)
    return "avx2" in flags and not flags & _VNNI


def _processors() -> Iterator[dict[str, str]]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return
    for block in text.split("\n\n"):
        pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
        found = {key.strip(): value.strip() for key, value in pairs}
        if found:
            yield found


def _cores(processors: list[dict[str, str]]) -> int:
    """Physical cores, no more than the process's affinity and its share of the host allow."""
    allowed = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    ids = {
        (one["physical id"], one["core id"])
        for one in processors
        if "physical id" in one and "core id" in one
    }
    counts = [len(ids) or allowed or 1, allowed or 1, _quota() or allowed or 1]
    return max(1, min(counts))


def _quota() -> int | None:
    """Cores that the control group grants, rounded up."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if limit == "max" else math.ceil(int(limit) / int(period))
    except (OSError, ValueError):
        return None
