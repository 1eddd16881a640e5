"""How a child ended, and what to tell the user about it."""

import errno
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from worker.isolation.limits import GIB, MIB, Limits


class Cause(StrEnum):
    DONE = "done"  #: result.json says ok
    FAILED = "failed"  #: result.json says why not; or the child went without a result
    CRASHED = "crashed"  #: a signal that the child brought upon itself
    OUT_OF_MEMORY = "out_of_memory"
    TIME_LIMIT = "time_limit"
    DISK_LIMIT = "disk_limit"
    FILE_LIMIT = "file_limit"  #: too many files, or folders too deep
    PROCESS_LIMIT = "process_limit"  #: too many threads or open files
    CANCELED = "canceled"  #: `stop` asked for it
    KILLED = (
        "killed"  #: SIGKILL from outside: the host ran out of memory, or an operator did it
    )


@dataclass(frozen=True, kw_only=True)
class Ended:
    """`result` is result.json, checked; `error` a problem: code message hint stage errors."""

    cause: Cause
    result: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    stopped_because: str | None = None  #: what `stop` answered
    signal: int | None = None
    stage: str | None = None  #: the last one heard of
    stderr: str = ""  #: for the operator's log, never for the user
    seconds: float = 0.0  #: without the time it stood still for another job's measuring
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0
    layers: Mapping[str, str] = field(default_factory=dict)  #: what held it, and how well


#: What Python, ONNX Runtime, torch and the dynamic linker say when an allocation is refused.
NO_MEMORY = (
    "MemoryError",
    "bad_alloc",
    "bad allocation",
    "Failed to allocate memory",
    "DefaultCPUAllocator",
    "annot allocate memory",
    "Arena alloc failed",  # protobuf, which raises the same DecodeError for a damaged file
    "ut of memory",
    "Memory allocation still failed",  # OpenBLAS
    # OpenBLAS as it is imported: before a model is read, only a thread's stack can lack room.
    "blas_thread_init: pthread_create failed",
    "failed to map segment",
    "libgcc_s.so.1 must be installed",  # glibc, of a library that it finds no room for
)
NO_DISK = ("No space left on device", "File too large", "Disk quota exceeded")
#: numpy's `tofile` raises an OSError without a number.
CUT_OFF = re.compile(r"\d+ requested and \d+ written")
NO_HANDLE = (
    "can't start new thread",
    "Too many open files",
    "Resource temporarily unavailable",
    "pthread_create failed",
)
#: A child that cannot have a layer that is required says so with this exit code.
EXIT_UNSEALED = 78


def limit_of(error: BaseException) -> Cause | None:
    """The limit that an exception complains of, by type or in words."""
    if isinstance(error, MemoryError):
        return Cause.OUT_OF_MEMORY
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return Cause.PROCESS_LIMIT
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Cause.DISK_LIMIT
    return limit_in(str(error))


def says_out_of_memory(text: str) -> bool:
    return any(words in text for words in NO_MEMORY)


def says_out_of_disk(text: str) -> bool:
    return any(words in text for words in NO_DISK) or CUT_OFF.search(text) is not None


def limit_in(text: str) -> Cause | None:
    """The limit that an error or a library complains of, if it is one."""
    if says_out_of_memory(text):
        return Cause.OUT_OF_MEMORY
    if says_out_of_disk(text):
        return Cause.DISK_LIMIT
    return Cause.PROCESS_LIMIT if any(words in text for words in NO_HANDLE) else None


def cause_of_signal(
    number: int, *, cpu_seconds: float, limits: Limits, at_limit: Cause | None
) -> Cause:
    """Why a signal ended a child that we did not end; `at_limit` is the limit it stood at."""
    if number == signal.SIGXCPU:
        return Cause.TIME_LIMIT
    if number == signal.SIGXFSZ:
        return Cause.DISK_LIMIT
    if number == signal.SIGKILL:
        # The kernel kills what goes on after SIGXCPU.
        over = cpu_seconds >= limits.cpu_seconds - 1
        return Cause.TIME_LIMIT if over else Cause.KILLED
    return at_limit or Cause.CRASHED


def problem(
    message: str,
    *,
    code: str,
    hint: str | None,
    stage: str | None = None,
    errors: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """An error as it goes on record and to the user."""
    return {
        "code": code,
        "message": message,
        "hint": hint,
        "stage": stage,
        "errors": list(errors),
    }


def explain(
    cause: Cause, *, stage: str | None, limits: Limits, number: int | None
) -> dict[str, Any]:
    """The problem to put on record for a cause that the child could not name itself."""
    where = f" while it was at the stage {stage}" if stage else ""
    name = _signal_name(number)
    message, hint = {
        Cause.OUT_OF_MEMORY: (
            f"the job needed more than its {_size(limits.memory_bytes)} of memory{where}",
            "send fewer or smaller calibration samples, or allow jobs more memory",
        ),
        Cause.TIME_LIMIT: (
            f"the job took longer than its {_duration(limits)}{where}",
            "send fewer samples or a smaller goal.time_budget_s, or allow jobs more time",
        ),
        Cause.DISK_LIMIT: (
            f"the job wrote more than its {_size(limits.disk_bytes)} of disk{where}",
            "send fewer calibration samples, or allow jobs more disk",
        ),
        Cause.FILE_LIMIT: (
            f"the job made more files, or deeper folders, than it may{where}",
            "no result of ours needs so many: send fewer samples, or another model",
        ),
        Cause.PROCESS_LIMIT: (
            f"the job needed more threads or open files than it may have{where}",
            "try again when the machine is less busy; if it stays, simplify the model",
        ),
        Cause.CRASHED: (
            f"the process that handled the model crashed{name}{where}",
            "the model makes a library crash: check that it runs in the newest ONNX Runtime",
        ),
        Cause.KILLED: (
            f"the process that handled the model was killed from outside{where}",
            "the machine may have run out of memory: try again when it is less busy",
        ),
        Cause.CANCELED: (f"the job was canceled{where}", None),
        Cause.FAILED: (
            f"the process that handled the model ended without a result{where}",
            "this is our fault; the service's log has the details",
        ),
    }[cause]
    code = "internal_error" if cause is Cause.FAILED else str(cause)
    return problem(message, code=code, hint=hint, stage=stage)


def _size(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


def _duration(limits: Limits) -> str:
    return f"{limits.wall_seconds:g} seconds ({limits.cpu_seconds:g} of computing)"


def _signal_name(number: int | None) -> str:
    if number is None:
        return ""
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return f" (signal {number})"
