"""Does the sandbox hold on this machine? Asked of a child that attacks it."""

import contextlib
import functools
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.isolation.folders import give, own_uid, remove_folder
from worker.isolation.landlock import NEWEST_ABI
from worker.isolation.limits import GIB, MIB, Limits
from worker.isolation.process import started
from worker.isolation.seal import Seal
from worker.isolation.supervise import Supervised

PROBES = "from worker.isolation.probes import main; sys.exit(main())"
NOTHING = "from worker.isolation.channel import enter; enter(sys.argv[1:4])"
LIMITS = Limits(wall_seconds=30, cpu_seconds=30, memory_bytes=GIB, disk_bytes=64 * MIB)


@dataclass(frozen=True)
class SelfTest:
    """`layers`: what became of each; `probes`: attack -> whether it was blocked."""

    layers: Mapping[str, str]
    probes: Mapping[str, bool]

    def open(self) -> list[str]:
        """Attacks that went through."""
        return [name for name, blocked in self.probes.items() if not blocked]

    def lines(self) -> list[str]:
        """One line per layer, one for the attacks."""
        blocked = sum(self.probes.values())
        through = f"; open: {', '.join(self.open())}" if self.open() else ""
        return [
            *(f"{name}: {state}" for name, state in self.layers.items()),
            f"attacks blocked: {blocked} of {len(self.probes)}{through}",
        ]


@functools.cache
def layers(sandbox: str = "auto") -> Mapping[str, str]:
    """What a child is held by on this machine; a child is started once to find out."""
    with tempfile.TemporaryDirectory(prefix="modelpress-") as folder:
        return _run(NOTHING, Path(folder), sandbox=sandbox, landlock_abi=NEWEST_ABI)[0]


def self_test(sandbox: str = "auto", *, landlock_abi: int = NEWEST_ABI) -> SelfTest:
    """Let a child attack its sandbox."""
    with _surroundings() as (folder, outside, port):
        readable = outside / "readable"
        held, said = _run(
            PROBES,
            folder,
            str(readable),
            str(port),
            str(outside),
            sandbox=sandbox,
            landlock_abi=landlock_abi,
            readable=(str(readable),),
        )
    return SelfTest(held, said.get("probes", {}))


@contextlib.contextmanager
def _surroundings() -> Iterator[tuple[Path, Path, int]]:
    """A folder for the child, one of others that it must not reach, and a TCP server's port."""
    top = Path(tempfile.mkdtemp(prefix="modelpress-"))
    outside, folder = top / "outside", top / "folder"
    try:
        # Open to everybody, so that only the sandbox stands before it.
        for path in (outside, outside / "job"):
            path.mkdir()
            path.chmod(0o777)
        for name in ("secret", "readable", "job/model"):
            (outside / name).write_text("secret")
            (outside / name).chmod(0o666)
        top.chmod(0o755)
        folder.mkdir()
        unix = socket.socket(socket.AF_UNIX)
        with socket.create_server(("127.0.0.1", 0)) as tcp, unix:
            unix.bind(str(outside / "socket"))
            unix.listen()
            (outside / "socket").chmod(0o777)
            yield folder, outside, tcp.getsockname()[1]
    finally:
        remove_folder(top)


def _run(
    program: str,
    folder: Path,
    *arguments: str,
    sandbox: str,
    landlock_abi: int,
    readable: tuple[str, ...] = (),
) -> tuple[Mapping[str, str], dict[str, Any]]:
    uid = own_uid(None, sandbox)
    give(folder, uid)
    wanted = Seal(
        parent=os.getpid(),
        limits=LIMITS,
        sandbox="off" if sandbox == "off" else "auto",
        input_bytes=0,
        uid=uid,
        writable=True,
        readable=readable,
        landlock_abi=landlock_abi,
    )
    said: dict[str, Any] = {}
    with started(program, folder, *arguments) as process:
        child = Supervised(process, wanted, folder, hear=said.update, stop=lambda: None)
        child.run()
    return child.layers, said
