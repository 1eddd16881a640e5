"""System calls that Python has no function for."""

import ctypes
import os
import platform
import sys

LINUX = sys.platform == "linux"
MACHINE = platform.machine()

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38

#: capset: number of the call, and of the structure's version.
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: object) -> int:
    """Call the kernel by number.

    Raises:
        OSError: with the kernel's reason.
    """
    # Each as a long: ctypes would pass a plain int in half a register.
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *words))
    if result == -1:
        raise _error()
    return result


def prctl(option: int, value: int) -> None:
    """Set one attribute of this process.

    Raises:
        OSError: with the kernel's reason.
    """
    if _libc.prctl(option, *(ctypes.c_ulong(word) for word in (value, 0, 0, 0))) != 0:
        raise _error()


def set_capabilities(mask: int) -> None:
    """Keep the capabilities in `mask` (the first 32), permitted and effective, and no other.

    Raises:
        OSError: with the kernel's reason.
    """
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)
    syscall(_CAPSET[MACHINE], ctypes.byref(header), ctypes.byref(data))


def unshare(flags: int) -> None:
    """Leave namespaces.

    Raises:
        OSError: with the kernel's reason.
    """
    if _libc.unshare(ctypes.c_int(flags)) != 0:
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
