"""What tus says in headers, read with suspicion."""

import hashlib
import hmac
import re
from base64 import b64decode
from binascii import Error as BadBase64
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from app.errors import Refusal
from app.uploads import display_name
from worker.jobs import ArtifactKind

VERSION = "1.0.0"
EXTENSIONS = "creation,expiration,checksum,termination"
ALGORITHMS = {"sha256": hashlib.sha256, "sha1": hashlib.sha1}
CHUNK_TYPE = "application/offset+octet-stream"
MAX_METADATA = 4096
COUNT = "0|[1-9][0-9]{0,17}"


@dataclass(frozen=True)
class Metadata:
    """What the client says of the file."""

    kind: ArtifactKind
    name: str
    text: str  # as it was sent, to be told again


@dataclass(frozen=True)
class Checksum:
    """What the bytes of one request must hash to."""

    algorithm: str
    digest: bytes

    def start(self) -> Any:  # noqa: ANN401 - hashlib's objects have no public type
        return ALGORITHMS[self.algorithm]()

    def matches(self, hashed: Any) -> bool:  # noqa: ANN401 - as above
        return hmac.compare_digest(hashed.digest(), self.digest)


def check_version(request: Request) -> None:
    """Refuse a client that speaks another version, or none."""
    if request.headers.get("tus-resumable") == VERSION:
        return
    raise Refusal(
        "unsupported_version",
        f"this address speaks tus {VERSION}",
        hint=f"use a tus client, which sends Tus-Resumable: {VERSION}",
        headers={"Tus-Version": VERSION},
    )


def number(request: Request, name: str) -> int:
    """A header that must be a count of bytes."""
    text = request.headers.get(name, "")
    if re.fullmatch(COUNT, text):
        return int(text)
    raise Refusal("bad_request", f"{name} must be a number of bytes")


def metadata(request: Request) -> Metadata:
    """Upload-Metadata: `kind`, and perhaps `filename`."""
    text = request.headers.get("upload-metadata", "")
    if len(text) > MAX_METADATA:
        raise Refusal("field_too_large", f"Upload-Metadata is longer than {MAX_METADATA:,}")
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = pair.partition(" ")
        if key in ("kind", "filename", "name"):  # what else there is may be anything
            found[key] = _decoded(value)
    kinds: dict[str | None, ArtifactKind] = {"model": "model", "dataset": "dataset"}
    kind = kinds.get(found.get("kind"))
    if kind is None:
        raise Refusal(
            "bad_request",
            "Upload-Metadata does not say what the file is",
            hint="send kind, which is model or dataset, in base64",
        )
    return Metadata(kind, display_name(found.get("filename") or found.get("name") or ""), text)


def checksum(request: Request) -> Checksum | None:
    """Upload-Checksum, where the client sent one."""
    text = request.headers.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in ALGORITHMS:
        raise Refusal(
            "bad_request",
            f"there is no checksum algorithm {algorithm[:20]!r}",
            hint=f"use one of {', '.join(ALGORITHMS)}",
        )
    try:
        return Checksum(algorithm, b64decode(value, validate=True))
    except (BadBase64, ValueError):
        raise Refusal("bad_request", "Upload-Checksum is not base64") from None


def _decoded(value: str) -> str:
    try:
        return b64decode(value, validate=True).decode(errors="replace")
    except (BadBase64, ValueError):
        raise Refusal("bad_request", "Upload-Metadata is not base64") from None
