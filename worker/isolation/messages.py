"""What supervisor and child say to each other, and the schema of the job's request."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Kind = Literal["compress", "inspect"]
KINDS = ("compress", "inspect")
STAGES = ("convert", "clean", "calibrate", "compress", "search", "measure", "report")
#: The measuring is over: what is left is to write it down.
LAST_STAGE = "report"

REQUEST_FILE = "request.json"
RESULT_FILE = "result.json"
#: A report names every layer; the largest corpus model needs 0.3 MB.
RESULT_BYTES = 64 << 20
LINE_BYTES = 16 << 10
MESSAGE_CHARACTERS = 300


class ProtocolError(Exception):
    """The other side said something that it must not say."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One job of a child. Paths are relative to its folder; absolute ones it may only read."""

    kind: Kind
    model: str  #: the upload, as it came
    name: str | None = None  #: what the user calls it
    recipe: Any = None  #: preset's name or JSON object; None is auto
    calibration: str | None = None
    evaluation: str | None = None
    inputs: dict[str, Any] | None = None  #: shapes, where the format has none
    out: str = "out"  #: where the results go
    cache: str | None = None  #: what earlier jobs on the same files found out
    partner: str | None = None  #: the decoder of an encoder, or the reverse
    metric: str | None = None  #: name of the metric that the supervisor is asked for

    def paths(self) -> list[str]:
        """Every file that the child has to read."""
        every = (self.model, self.calibration, self.evaluation, self.partner)
        return [path for path in every if path]

    def to_json(self) -> str:
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> "Request":
        """Read a request that our own supervisor wrote.

        Raises:
            ProtocolError: for anything else.
        """
        content = strict_json(text)
        names = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or set(content) - names or "model" not in content:
            raise ProtocolError("request.json is not a request")
        if content.get("kind") not in KINDS:
            raise ProtocolError(f"request.json asks for {content.get('kind')!r}")
        return cls(**content)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a job stands: `share` of the whole, 0 to 1."""

    stage: str
    share: float
    message: str


def read_progress(content: object) -> Progress:
    """Check what a child says about its progress: it may be anyone's code by now.

    Raises:
        ProtocolError: if it is no progress.
    """
    if not isinstance(content, Mapping):
        raise ProtocolError("progress is not an object")
    stage, share, message = (content.get(key) for key in ("stage", "share", "message"))
    if stage not in STAGES or not isinstance(message, str):
        raise ProtocolError("progress without a stage and a message")
    if (
        isinstance(share, bool)
        or not isinstance(share, int | float)
        or not math.isfinite(share)
    ):
        raise ProtocolError("progress without a share")
    printable = "".join(c if c.isprintable() else " " for c in message[:MESSAGE_CHARACTERS])
    return Progress(stage=str(stage), share=min(1.0, max(0.0, float(share))), message=printable)


def read_seconds(content: object) -> float:
    """Check how long a child wants to wait for quiet.

    Raises:
        ProtocolError: if it is no number of seconds.
    """
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise ProtocolError("quiet without a number of seconds")
    if not math.isfinite(content) or content < 0:
        raise ProtocolError("quiet for no number of seconds that can be waited")
    return float(content)


def strict_json(text: str | bytes) -> Any:  # noqa: ANN401 - whatever JSON holds; the caller checks it
    """Parse JSON without NaN, Infinity or a key given twice.

    Raises:
        ProtocolError: for everything that is not that, however deeply it is nested.
    """
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"not strict JSON: {error}") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key is given twice")
    return content


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as one line."""
    return json.dumps(message, allow_nan=False).encode() + b"\n"


class Lines:
    """Cuts a stream of bytes into messages.

    Raises:
        ProtocolError: from `feed`, for a line that is too long or no JSON object.
    """

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if any(len(line) > LINE_BYTES for line in (*lines, self._rest)):
            raise ProtocolError(f"a message is longer than {LINE_BYTES} bytes")
        messages = [strict_json(line) for line in lines]
        if not all(isinstance(message, dict) for message in messages):
            raise ProtocolError("a message is not an object")
        return messages


def read_line(descriptor: int) -> dict[str, Any]:
    """Wait for the next message on a pipe that carries one answer per question.

    Raises:
        EOFError: when the other side is gone.
    """
    data = b""
    while not data.endswith(b"\n"):
        chunk = os.read(descriptor, LINE_BYTES)
        if not chunk:
            raise EOFError("the supervisor is gone")
        data += chunk
    content = strict_json(data)
    if not isinstance(content, dict):
        raise ProtocolError("an answer is not an object")
    return content
