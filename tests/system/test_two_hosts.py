"""Two web processes that share nothing but PostgreSQL, Redis and S3, as behind a balancer."""

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import httpx
import pytest

from tests.bars.resuming import CHUNK, SPOKEN
from tests.bars.wire import NUMPY
from tests.swift import BUCKET
from tests.system.service import wait_until
from tests.system.web import Web
from worker.jobs import migrate

pytestmark = pytest.mark.system


class Host(Web):
    """One that resumable uploads are sent to."""

    def send(self, address: str, data: bytes, at: int) -> httpx.Response:
        headers = SPOKEN | CHUNK | {"Upload-Offset": str(at)}
        return self.client.patch(address, content=data, headers=headers)

    def offset(self, address: str) -> int:
        return int(self.client.head(address, headers=SPOKEN).headers["upload-offset"])

    @contextmanager
    def sending(self, address: str, data: bytes, at: int) -> Iterator[None]:
        """Send part of what was stated; what follows happens in the middle of the request."""
        port = self.client.base_url.port
        lines = [f"PATCH {address} HTTP/1.1", "Host: localhost"]
        lines.append(f"Content-Length: {len(data) + 1}")
        said = SPOKEN | CHUNK | {"Upload-Offset": str(at)}
        lines += [f"{name}: {value}" for name, value in said.items()]
        with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)
            yield


@pytest.fixture
def hosts(scaled: dict[str, str], tmp_path: Path) -> Iterator[list[Host]]:
    migrate(scaled["database_url"])
    webs = [Host(tmp_path / name, scaled) for name in ("a", "b")]
    yield webs
    for web in webs:
        web.stop()


def announce(web: Host, size: int) -> str:
    told = {"Upload-Length": str(size), "Upload-Metadata": "kind ZGF0YXNldA=="}
    return str(web.client.post("/v1/uploads", headers=SPOKEN | told).headers["location"])


def stored(scaled: dict[str, str]) -> int:
    prefix = scaled["storage_url"].partition(f"{BUCKET}/")[2]
    found = boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    return len(found.get("Contents", []))


def test_a_resumable_upload_goes_on_at_any_web_process_and_after_the_death_of_one(
    hosts: list[Host], scaled: dict[str, str]
) -> None:
    one, other = hosts
    content = NUMPY + os.urandom(3_000_000)
    address = announce(one, len(content))
    assert one.send(address, content[:1_000_000], 0).status_code == 204
    assert other.offset(address) == 1_000_000

    # Of two that send to one place, the first to arrive whole counts.
    late = one.send(address, content[:10], 0)
    assert (late.status_code, late.json()["code"]) == (409, "offset_conflict")

    with other.sending(address, content[1_000_000:1_500_000], 1_000_000):
        time.sleep(0.3)  # it arrives; then the client is gone
    wait_until(lambda: one.offset(address) > 1_000_000, seconds=20)
    stands = one.offset(address)
    assert other.send(address, content[stands:2_000_000], stands).status_code == 204
    with other.sending(address, content[2_000_000:2_100_000], 2_000_000):
        other.kill()

    last = one.send(address, content[2_000_000:], 2_000_000)
    made = last.headers["location"]
    other.start()
    assert other.client.get(made).json()["sha256"] == hashlib.sha256(content).hexdigest()
    assert other.client.head(address, headers=SPOKEN).headers["location"] == made
    assert stored(scaled) == 1
    assert other.client.delete(made).status_code == 204
    assert stored(scaled) == 0


def test_what_arrived_of_an_upload_that_is_given_up_leaves_the_store(
    hosts: list[Host], scaled: dict[str, str]
) -> None:
    one, other = hosts
    address = announce(one, 1000)
    one.send(address, NUMPY, 0)
    assert stored(scaled) == 1
    assert other.client.delete(address, headers=SPOKEN).status_code == 204
    assert stored(scaled) == 0
    assert one.client.head(address, headers=SPOKEN).status_code == 404
    left = [file for web in hosts for file in (web.folder / "incoming").glob("*")]
    assert left == []
