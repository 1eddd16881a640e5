"""Landlock: which files a process may open, from now on and for ever.

Numbers: include/uapi/linux/landlock.h. Metadata (stat, chmod, utime) is outside of Landlock's
reach; seccomp and the own user cover what of it could do harm.
"""

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from worker.isolation.kernel import LINUX, syscall

#: The newest version whose rights are named below; a newer kernel understands it too.
NEWEST_ABI = 7

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # the same on every architecture
CREATE_RULESET_VERSION = 1
RULE_PATH_BENEATH = 1

WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIR = 1 << 3
REMOVE_DIR = 1 << 4
REMOVE_FILE = 1 << 5
MAKE_DIR = 1 << 7
MAKE_REG = 1 << 8
REFER = 1 << 13  # rename from one folder to another; ABI 2
TRUNCATE = 1 << 14  # ABI 3
#: Rights by the version that brought them: what is handled and not granted is refused. Nothing
#: grants to execute, or to make sockets, devices, FIFOs and symbolic links.
FILE_RIGHTS = {1: (1 << 13) - 1, 2: REFER, 3: TRUNCATE, 5: 1 << 15}
NET_RIGHTS = {4: 0b11}  # bind and connect TCP
SCOPES = {6: 0b11}  # abstract unix sockets, signals

READ = READ_FILE | READ_DIR
WRITE = (
    READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
)  # fmt: skip
#: Rights that make sense for what is not a folder; the kernel refuses a rule with others.
OF_FILES = READ_FILE | WRITE_FILE | TRUNCATE


class _Ruleset(ctypes.Structure):
    _fields_ = [
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    ]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def supported_abi() -> int:
    """The kernel's version of Landlock, 0 where there is none."""
    if not LINUX:
        return 0
    try:
        return syscall(CREATE_RULESET, None, 0, CREATE_RULESET_VERSION)
    except OSError:
        return 0


def restrict(*, readable: Iterable[str], writable: Iterable[str], abi: int) -> None:
    """Leave this thread, and those it starts, these files and folders only. No way back.

    Raises:
        OSError: the kernel refused.
    """
    handled = _up_to(abi, FILE_RIGHTS)
    with _ruleset(abi, handled) as ruleset:
        for path in readable:
            _allow(ruleset, path, READ & handled)
        for path in writable:
            _allow(ruleset, path, WRITE & handled)
        syscall(RESTRICT_SELF, ruleset, 0)


def _up_to(abi: int, rights: dict[int, int]) -> int:
    return sum(mask for since, mask in rights.items() if since <= abi)


@contextlib.contextmanager
def _ruleset(abi: int, handled: int) -> Iterator[int]:
    attributes = _Ruleset(handled, _up_to(abi, NET_RIGHTS), _up_to(abi, SCOPES))
    # An older kernel takes a shorter structure.
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    descriptor = syscall(CREATE_RULESET, ctypes.byref(attributes), size, 0)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _allow(ruleset: int, path: str, rights: int) -> None:
    """Grant `rights` on a path and what is below it; a path that is not there needs none."""
    try:
        descriptor = os.open(Path(path), os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= OF_FILES
        rule = _PathBeneath(rights, descriptor)
        syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)
