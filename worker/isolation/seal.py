"""The order in which a child gives up what it does not need, before it looks at any model."""

import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker.isolation import landlock, privileges, seccomp
from worker.isolation.limits import Limits, apply_limits

#: Without these two a model can read the disk and reach the network.
REQUIRED = ("landlock", "seccomp")

PACKAGE = Path(__file__).resolve().parents[1]
#: What Python, ONNX Runtime and torch look at besides their own files.
SYSTEM_PATHS = (
    "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo",
    "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime",
    "/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat",
    "/sys/devices/system/cpu", "/sys/devices/system/node",
    "/dev/urandom", "/dev/zero",
)  # fmt: skip
DEV_NULL = "/dev/null"


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What a child is told to hold itself to: over a pipe, since a file could be edited."""

    parent: int  #: the supervisor's process id
    limits: Limits
    sandbox: str  #: auto, required, off
    input_bytes: int
    uid: int | None  #: to become, where the supervisor is root
    writable: bool  #: whether the folder may be written, or read only
    readable: tuple[str, ...]  #: what the job may read outside of its folder
    landlock_abi: int = landlock.NEWEST_ABI  #: the newest that may be used; tests lower it

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "Seal":
        content = {**message, "readable": tuple(message["readable"])}
        content["limits"] = Limits(**message["limits"])
        return cls(**content)

    def lacks(self, layers: Mapping[str, str]) -> bool:
        """Whether a layer that must hold does not."""
        return self.sandbox == "required" and bool(missing_layers(layers))


def missing_layers(layers: Mapping[str, str]) -> list[str]:
    """Give the layers that a sandbox must have and this machine does not."""
    return [name for name in REQUIRED if not layers.get(name, "").startswith("ok")]


def seal(wanted: Seal, folder: Path) -> dict[str, str]:
    """Give up everything that a model does not need; tells what became of each layer."""
    needed = [path for path in (*python_paths(), *wanted.readable) if Path(path).exists()]
    own_user = wanted.uid is not None and wanted.sandbox != "off"
    limits = apply_limits(wanted.limits, input_bytes=wanted.input_bytes, own_user=own_user)
    layers = {"rlimits": limits}
    if wanted.sandbox == "off":
        privileges.die_with_parent(wanted.parent)
        return layers | dict.fromkeys(("user", "network", *REQUIRED), "off (by setting)")
    _try(privileges.volunteer_for_oom)  # no layer: it protects the supervisor
    layers["network"] = _try(privileges.leave_network)
    layers["user"] = _user(wanted.uid, [*needed, str(folder)])
    privileges.die_with_parent(wanted.parent)
    layers["privileges"] = _try(privileges.stay_unprivileged)
    layers["landlock"] = _landlock(wanted, folder, needed)
    layers["seccomp"] = _seccomp()
    return layers


def _try(step: Callable[[], object]) -> str:
    try:
        said = step()
    except OSError as error:
        return f"unavailable ({error.strerror})"
    except (AttributeError, KeyError):  # no such call in this system's C library
        return f"unavailable (not on {sys.platform})"
    return said if isinstance(said, str) else "ok"


def _user(uid: int | None, needed: list[str]) -> str:
    if uid is None:
        dropped = _try(privileges.drop_capabilities)
        return f"unavailable (not root; capabilities dropped: {dropped})"
    state = _try(lambda: privileges.become(uid, needed=needed))
    if not state.startswith("ok"):  # the root of a container or a namespace may not
        state += f"; capabilities dropped: {_try(privileges.drop_capabilities)}"
    return state


def _landlock(wanted: Seal, folder: Path, needed: list[str]) -> str:
    abi = min(landlock.supported_abi(), landlock.NEWEST_ABI, wanted.landlock_abi)
    if abi == 0:
        return "unavailable (not in this kernel)"
    readable = [*SYSTEM_PATHS, *needed]
    writable = [DEV_NULL]
    (writable if wanted.writable else readable).append(str(folder))
    covered = "" if abi >= 3 else ", truncate covered by seccomp"
    covered += "" if abi >= 4 else ", TCP by seccomp"
    state = _try(lambda: landlock.restrict(readable=readable, writable=writable, abi=abi))
    return f"ok (ABI {abi}{covered})" if state == "ok" else state


def _seccomp() -> str:
    if not seccomp.available():
        return f"unavailable (not on {sys.platform} {os.uname().machine})"
    return _try(seccomp.restrict)


def python_paths() -> list[str]:
    """Folders that Python imports from.

    Of a checkout that we may be running from only the package: its data may well be in there.
    """
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    libraries = [f"{prefix}/{lib}" for prefix in sorted(prefixes) for lib in ("lib", "lib64")]
    schemes = [
        sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
    ]
    imported = [path for path in sys.path if path and path != str(PACKAGE.parent)]
    found = dict.fromkeys([*libraries, *schemes, *imported, str(PACKAGE)])
    return [path for path in found if Path(path).is_absolute()]
