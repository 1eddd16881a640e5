"""The order in which a child gives up what it does not need, before any model is looked at."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker.isolation.limits import Limits, apply_limits

#: Without these two a model can read the disk and reach the network.
REQUIRED = ("landlock", "seccomp")


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What a child is told to hold itself to. It comes over a pipe: no file that anyone can edit."""

    limits: Limits
    sandbox: str  #: auto, required, off
    input_bytes: int
    uid: int | None  #: to become, where the supervisor is root
    writable: bool  #: whether the folder may be written
    readable: tuple[str, ...]
    landlock_abi: int  #: highest that may be used; tests lower it

    def to_message(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> "Seal":
        content = {**message, "readable": tuple(message["readable"])}
        content["limits"] = Limits(**message["limits"])
        return cls(**content)

    def missing(self, layers: Mapping[str, str]) -> list[str]:
        """Required layers that could not be had."""
        if self.sandbox != "required":
            return []
        return [name for name in REQUIRED if not layers.get(name, "").startswith("ok")]


def seal(wanted: Seal, folder: Path) -> dict[str, str]:
    """Give up everything that a model does not need; tells what became of each layer."""
    apply_limits(wanted.limits, input_bytes=wanted.input_bytes, own_user=False)
    return {"rlimits": "ok"}
