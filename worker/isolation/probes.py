"""Attacks on the sandbox from inside: what a hostile model would try first."""

import contextlib
import ctypes
import fcntl
import mmap
import os
import resource
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from worker.isolation.channel import enter

CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
PTRACE_SEIZE = 0x4206
MIB = 1 << 20


def main() -> int:
    """Tell of each attack whether it was blocked.

    Arguments: a file that may be read, the port of a TCP server, a folder of others.
    """
    channel = enter(sys.argv[1:4])
    readable, port, outside = sys.argv[4], int(sys.argv[5]), Path(sys.argv[6])
    probes = {**_files(Path(readable), outside), **_processes(), **_network(port, outside)}
    channel.tell(probes={name: _blocked(attack) for name, attack in probes.items()})
    return 0


def _blocked(attack: Callable[[], object]) -> bool:
    try:
        attack()
    except (OSError, MemoryError):
        return True
    return False


def _files(readable: Path, outside: Path) -> dict[str, Callable[[], object]]:
    return {
        "read a secret": lambda: (outside / "secret").read_text(),
        "read another job": lambda: (outside / "job" / "model").read_text(),
        "write into another job": lambda: (outside / "job" / "model").write_text("mine"),
        "read /etc/passwd": lambda: Path("/etc/passwd").read_text(),
        "list /": lambda: list(Path("/").iterdir()),
        "write outside": lambda: (outside / "new").write_text("mine"),
        "write into /tmp": lambda: Path(f"/tmp/modelpress-{os.getpid()}").write_text("mine"),  # noqa: S108
        "truncate a file it may read": lambda: os.truncate(readable, 0),
        "truncate by opening": lambda: os.open(readable, os.O_RDONLY | os.O_TRUNC),
        "change the mode of a file": lambda: _change_mode(readable),
        "read by way of /proc/self/root": lambda: Path(
            "/proc/self/root/etc/passwd"
        ).read_text(),
        "list the processes": lambda: list(Path("/proc").iterdir()),
        "move a file out": lambda: Path("request.json").rename(outside / "moved"),
        "FIFO": lambda: os.mkfifo("fifo"),
        "device": lambda: os.mknod("device", stat.S_IFCHR, os.makedev(1, 3)),
        "sparse file of a terabyte": lambda: os.truncate(_descriptor("sparse"), 1 << 40),
        "symbolic link": lambda: Path("link").symlink_to("/etc/passwd"),
        "hard link": lambda: Path("hard").hardlink_to(readable),
        "file over the limit": _large_file,
        "memory over the limit": lambda: mmap.mmap(-1, 64 * 1024 * MIB),
        "private memory over the limit": lambda: bytearray(64 * 1024 * MIB),
        "hidden memory": lambda: os.memfd_create("hidden"),
    }


def _processes() -> dict[str, Callable[[], object]]:
    return {
        "signal the parent": lambda: os.kill(os.getppid(), 0),
        "read the parent's environment": lambda: Path(
            f"/proc/{os.getppid()}/environ"
        ).read_bytes(),
        "read the environment of others": lambda: Path("/proc/1/environ").read_bytes(),
        "read the parent's files": lambda: list(Path(f"/proc/{os.getppid()}/fd").iterdir()),
        "signal everybody": lambda: os.kill(-1, 0),
        "have the kernel signal the parent": lambda: fcntl.fcntl(
            _descriptor("owned"), fcntl.F_SETOWN, os.getppid()
        ),
        "limit the parent": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
        "raise its own limits": _raise_limits,
        "program in memory": lambda: os.memfd_create("program"),
        "start a program": _execute,
        "start a process": _fork,
        "user namespace": lambda: _call("unshare", CLONE_NEWUSER),
        "outlive the parent": lambda: _call("prctl", PR_SET_PDEATHSIG, 0, 0, 0, 0),
        "look into another process": lambda: _call("ptrace", PTRACE_SEIZE, os.getppid(), 0, 0),
    }


def _network(port: int, outside: Path) -> dict[str, Callable[[], object]]:
    return {
        "TCP": lambda: socket.create_connection(("127.0.0.1", port), timeout=1),
        "UDP": lambda: _udp(port),
        "unix socket": lambda: _unix(outside / "socket"),
    }


def _large_file() -> None:
    with Path("large").open("wb") as file:
        file.seek(1024 * MIB)
        file.write(b"x")


def _descriptor(name: str) -> int:
    return os.open(name, os.O_RDWR | os.O_CREAT, 0o600)


def _raise_limits() -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard + 1, hard + 1))
    except ValueError as error:
        raise PermissionError from error


def _change_mode(path: Path) -> None:
    """To the sandbox a change of mode succeeds and does nothing."""
    before = path.stat().st_mode
    path.chmod(0o777)
    if path.stat().st_mode == before:
        raise PermissionError


def _execute() -> None:
    """A program that is not there: who may start one learns that first."""
    with contextlib.suppress(FileNotFoundError):
        os.execv("/no/such/program", ["program"])  # noqa: S606 - it is the attack


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _call(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*(ctypes.c_long(one) for one in arguments)) < 0:
        raise OSError(ctypes.get_errno(), name)


def _udp(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("127.0.0.1", port))


def _unix(path: Path) -> None:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as one:
        one.connect(str(path))
