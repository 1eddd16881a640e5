"""Tell what a pickle holds by its opcodes alone. Nothing is ever unpickled."""

import pickletools
import struct
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

from worker.compression import UnsupportedFormat
from worker.ingest.refusals import refusal

Kind = Literal["module", "state_dict", "other"]

LEGACY_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")  # torch.save before 1.6
_LEGACY_PREAMBLE = 3  # magic number, protocol version, system information
_MAX_OPCODES = 200_000
_MALFORMED = (ValueError, ArithmeticError, LookupError, EOFError, struct.error)
_PLAIN = ("torch", "torch._utils", "torch.nn.parameter", "torch.storage", "torch.serialization",
          "torch._tensor", "torch.distributed", "torch.optim", "collections", "builtins",
          "__builtin__", "copy_reg", "copyreg", "_codecs", "argparse", "pathlib", "omegaconf",
          "typing")  # fmt: skip


@dataclass(frozen=True)
class Pickled:
    """What a pickle holds; `culprit` is the class that makes it one."""

    kind: Kind
    culprit: str


@dataclass
class _Seen:
    strings: list[str] = field(default_factory=list)
    memo: dict[int, str] = field(default_factory=dict)
    classes: list[str] = field(default_factory=list)
    tensors: bool = False


def is_pickle(head: bytes) -> bool:
    """Whether the bytes start like a pickle of protocol 2 or newer."""
    return len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def describe(data: bytes) -> Pickled:
    """Judge a pickle by the classes it names; `data` may be only its beginning."""
    stream = BytesIO(data)
    seen = _Seen()
    try:
        if data.startswith(LEGACY_MAGIC):
            for _ in range(_LEGACY_PREAMBLE):
                _read(stream, _Seen())
        _read(stream, seen)
    except _MALFORMED:
        pass  # cut by our own cap, or damaged: what was seen until then decides
    return _judge(seen)


def refused(pickled: Pickled) -> UnsupportedFormat:
    """The refusal that fits what a pickle holds."""
    if pickled.kind == "module":
        return refusal("pickled_module", f"class {pickled.culprit[:100]}")
    if pickled.kind == "state_dict":
        return refusal("state_dict")
    return refusal("unsupported_pickle", pickled.culprit[:100])


def _read(stream: BytesIO, seen: _Seen) -> None:
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if count == _MAX_OPCODES:
            return
        _note(opcode.name, argument, seen)


def _note(opcode: str, argument: object, seen: _Seen) -> None:
    if opcode in ("GLOBAL", "INST"):
        _name(str(argument).replace(" ", ".", 1), seen)
    elif opcode == "STACK_GLOBAL" and len(seen.strings) == 2:
        _name(".".join(seen.strings), seen)
    elif opcode in ("SHORT_BINUNICODE", "BINUNICODE"):
        seen.strings = [*seen.strings[-1:], str(argument)[:200]]
    elif opcode == "MEMOIZE":
        seen.memo[len(seen.memo)] = seen.strings[-1] if seen.strings else ""
    elif opcode in ("BINGET", "LONG_BINGET") and isinstance(argument, int):
        seen.strings = [*seen.strings[-1:], seen.memo.get(argument, "")]


def _name(name: str, seen: _Seen) -> None:
    module, _, attribute = name.rpartition(".")
    seen.tensors |= module == "torch._utils" or attribute.endswith("Storage")
    if len(seen.classes) < 64 and name not in seen.classes:
        seen.classes.append(name)


def _judge(seen: _Seen) -> Pickled:
    modules = [name for name in seen.classes if name.startswith("torch.nn.modules.")]
    if modules:
        return Pickled("module", _outer_class(seen.classes) or modules[0])
    if not seen.tensors:
        return Pickled("other", seen.classes[0] if seen.classes else "plain data")
    outer = seen.classes[0]
    if not _is_plain(outer):
        return Pickled("module", outer)
    return Pickled("state_dict", outer)


def _outer_class(classes: list[str]) -> str | None:
    return next((name for name in classes if not _is_plain(name)), None)


def _is_plain(name: str) -> bool:
    """Whether a state dict or a checkpoint may well name this class."""
    return any(name == known or name.rpartition(".")[0] == known for known in _PLAIN) or (
        name.split(".")[0] in ("numpy", "pytorch_lightning", "lightning")
    )
