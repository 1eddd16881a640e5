"""Whom a child acts for: a user of its own, no capability, no network, dead with its parent."""

import os
import signal
from collections.abc import Iterable
from pathlib import Path

from worker.isolation.kernel import (
    LINUX,
    PR_SET_DUMPABLE,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    prctl,
    set_capabilities,
    unshare,
)

#: First of the user ids that children take, one per slot; distributions give out smaller ones.
FIRST_UID = 61_000
SLOTS = 1_000

CAP_DAC_READ_SEARCH = 1 << 2
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000


def leave_network() -> None:
    """Go into a network namespace with nothing in it, and an IPC namespace.

    Raises:
        OSError: the host does not let ordinary users do that.
    """
    if os.getuid() == 0:
        unshare(CLONE_NEWNET | CLONE_NEWIPC)
        return
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC)
    # Without a mapping no file could be created any more.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def become(uid: int, *, needed: Iterable[str]) -> str:
    """Turn from root into an ordinary user, for good; tells what it took.

    Where that user could not read what it must (Python below a closed /root, an upload of the
    service's own), it keeps CAP_DAC_READ_SEARCH and no other: reading, which Landlock bounds.

    Raises:
        OSError: this root may not change its user.
    """
    prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    readable = all(_can_read(path) for path in needed)
    set_capabilities(0 if readable else CAP_DAC_READ_SEARCH)
    prctl(PR_SET_KEEPCAPS, 0)
    return f"ok (uid {uid})" if readable else f"ok (uid {uid}, keeps CAP_DAC_READ_SEARCH)"


def drop_capabilities() -> None:
    """Keep none.

    Raises:
        OSError: with the kernel's reason.
    """
    set_capabilities(0)


def _can_read(path: str) -> bool:
    """Whether this user can read a file, or a folder with what is right below it."""
    if not _accessible(path):
        return False
    if not Path(path).is_dir():
        return True
    with os.scandir(path) as entries:
        return all(_accessible(entry.path) for entry in entries)


def _accessible(path: str) -> bool:
    return os.access(path, os.R_OK, effective_ids=True)


def die_with_parent(parent: int) -> None:
    """Be killed when the supervisor dies. After a change of user, which would undo it.

    Raises:
        OSError: with the kernel's reason.
        SystemExit: the supervisor is dead already.
    """
    if LINUX:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def stay_unprivileged() -> None:
    """Gain nothing from set-user-id programs; a condition of Landlock and seccomp.

    Raises:
        OSError: with the kernel's reason.
    """
    # After a change of user /proc/self would belong to root.
    prctl(PR_SET_DUMPABLE, 1)
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def volunteer_for_oom() -> None:
    """When the host runs out of memory, this process goes before the supervisor.

    Raises:
        OSError: no such file here.
    """
    Path("/proc/self/oom_score_adj").write_text("500")
