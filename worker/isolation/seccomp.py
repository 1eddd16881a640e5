"""seccomp: which system calls a process may make, from now on and for ever.

A list of what is refused, since what ONNX Runtime and torch need differs with their version:
starting programs and processes, sockets, looking into and signalling other processes, mounting,
namespaces, everything that Landlock leaves open, and each system call newer than the list.
"""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from worker.isolation.calls import CONDITIONAL, PRETENDED, REFUSED, UNKNOWN, Table
from worker.isolation.kernel import LINUX, MACHINE, syscall

#: AUDIT_ARCH of a 64-bit machine, and the number of the system call `seccomp`.
ARCHITECTURES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}
#: Newer calls are in no table (462 is mseal); those of the x32 interface have larger numbers.
LAST_KNOWN = 462

SET_MODE_FILTER = 1
#: For all threads; and without the speculation barriers that old kernels put on with a filter,
#: which would make every timing in a child slower than outside.
FLAG_TSYNC, FLAG_SPEC_ALLOW = 1, 4

ALLOW = 0x7FFF0000
KILL_PROCESS = 0x80000000
PRETEND = 0x00050000  # the call does nothing and says that all is well
EPERM = PRETEND | errno.EPERM
ENOSYS = PRETEND | errno.ENOSYS

# struct seccomp_data, and the instructions of classic BPF
NUMBER, ARCHITECTURE = 0, 4
LOAD, AND, RETURN = 0x20, 0x54, 0x06
EQUAL, GREATER, ANY_BIT = 0x15, 0x25, 0x45

CLONE_THREAD = 0x10000
CLONE_NEW = 0x7E020000
PR_SET_PDEATHSIG, PR_SET_MM = 1, 35
F_SETOWN, F_SETSIG, F_SETOWN_EX = 8, 10, 15
FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX = 0x8901, 0x8902, 0x5412, 0x541C

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


def available() -> bool:
    return LINUX and MACHINE in ARCHITECTURES


def restrict() -> None:
    """Refuse this process the calls above. No way back.

    Raises:
        OSError: the kernel refused.
    """
    _, number = ARCHITECTURES[MACHINE]
    code = b"".join(struct.pack("=HBBI", *one) for one in program(os.getpid()))
    buffer = ctypes.create_string_buffer(code)
    address = ctypes.cast(buffer, ctypes.c_void_p).value or 0
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, address))
    flags = FLAG_TSYNC | FLAG_SPEC_ALLOW
    thread = syscall(number, SET_MODE_FILTER, flags, ctypes.byref(header))
    if thread:
        raise OSError(errno.EBUSY, f"thread {thread} cannot take the filter")


def program(pid: int) -> list[Instruction]:
    """The filter of this machine's architecture, for the process with this id."""
    architecture, _ = ARCHITECTURES[MACHINE]
    code: list[Instruction] = [
        (LOAD, 0, 0, ARCHITECTURE),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER),
        (GREATER, 0, 1, LAST_KNOWN),
        (RETURN, 0, 0, ENOSYS),
    ]
    for table, answer in ((UNKNOWN, ENOSYS), (PRETENDED, PRETEND), (REFUSED, EPERM)):
        for number in _numbers(table):
            code += [(EQUAL, 0, 1, number), (RETURN, 0, 0, answer)]
    for name, block in conditions(pid).items():
        for number in _numbers({name: CONDITIONAL[name]}):
            code += [(EQUAL, 0, len(block), number), *block]
    return [*code, (RETURN, 0, 0, ALLOW)]


def conditions(pid: int) -> dict[str, list[Instruction]]:
    """What decides, by argument, over the calls that are neither good nor bad as such."""
    itself = _allow_only(0, pid)
    return {
        "clone": _threads_only(),
        "kill": itself,
        "tgkill": itself,
        "rt_sigqueueinfo": itself,
        "rt_tgsigqueueinfo": itself,
        "prlimit64": _allow_only(0, 0),
        # To outlive its supervisor; to pose as another program.
        "prctl": _refuse(0, (PR_SET_PDEATHSIG, PR_SET_MM)),
        # To have the kernel send a signal to another process.
        "fcntl": _refuse(1, (F_SETOWN, F_SETSIG, F_SETOWN_EX)),
        "ioctl": _refuse(1, (FIOSETOWN, SIOCSPGRP, TIOCSTI, TIOCLINUX)),
        "open": _no_truncating_reader(1),
        "openat": _no_truncating_reader(2),
    }


def _numbers(table: Table) -> Iterable[int]:
    column = tuple(ARCHITECTURES).index(MACHINE)
    return [numbers[column] for numbers in table.values() if numbers[column] is not None]  # type: ignore[misc]


def _argument(index: int) -> Instruction:
    """Load the low half of an argument: all of what the kernel looks at in those used here."""
    return (LOAD, 0, 0, 16 + 8 * index)


def _allow_only(index: int, value: int) -> list[Instruction]:
    return [
        _argument(index),
        (EQUAL, 0, 1, value),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, EPERM),
    ]


def _refuse(index: int, values: tuple[int, ...]) -> list[Instruction]:
    refusals = [
        one for value in values for one in ((EQUAL, 0, 1, value), (RETURN, 0, 0, EPERM))
    ]
    return [_argument(index), *refusals, (RETURN, 0, 0, ALLOW)]


def _threads_only() -> list[Instruction]:
    return [
        _argument(0),
        (ANY_BIT, 2, 0, CLONE_NEW),
        (ANY_BIT, 0, 1, CLONE_THREAD),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, EPERM),
    ]


def _no_truncating_reader(index: int) -> list[Instruction]:
    """Opening for reading with O_TRUNC empties a file: Landlock sees a reader before ABI 3."""
    return [
        _argument(index),
        (AND, 0, 0, os.O_TRUNC | os.O_ACCMODE),
        (EQUAL, 0, 1, os.O_TRUNC | os.O_RDONLY),
        (RETURN, 0, 0, EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
