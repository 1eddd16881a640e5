"""Objects in a bucket. Address and keys come from where boto3 looks: AWS_ENDPOINT_URL, ..."""

import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from worker.folders import make_private
from worker.objects.base import (
    PIECE_BYTES,
    Listed,
    ObjectMissing,
    StoredObject,
    checked,
    upload_key,
)
from worker.objects.incoming import Incoming, sweep_folder

_GONE = ("404", "NoSuchKey", "NotFound")


class S3Store:
    """A bucket, below a prefix; uploads are spooled on the local disk, then sent in parts."""

    def __init__(self, url: str, *, spool: Path) -> None:
        address = urlsplit(url)
        self._bucket = address.netloc
        self._prefix = address.path.strip("/")
        self._spool = make_private(spool)

    @cached_property
    def _client(self) -> Any:  # noqa: ANN401 - boto3 makes its classes at run time
        import boto3  # noqa: PLC0415 - an extra: the embedded default does without
        from botocore.config import Config  # noqa: PLC0415 - likewise

        # Other stores than Amazon's refuse the checksums that newer clients add by themselves.
        config = Config(
            connect_timeout=5,
            read_timeout=60,
            retries={"mode": "standard", "max_attempts": 4},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return boto3.client("s3", config=config)

    @property
    def outages(self) -> tuple[type[Exception], ...]:
        from boto3.exceptions import Boto3Error  # noqa: PLC0415 - an extra
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - likewise

        return Boto3Error, BotoCoreError, ClientError

    def receive(self, owner_id: str, *, expected_bytes: int | None = None) -> Incoming:
        keep = self._keeper(owner_id)
        return Incoming(self._spool, keep=keep, expected_bytes=expected_bytes)

    def _keeper(self, owner_id: str) -> Callable[[Path, int, str], StoredObject]:
        def keep(path: Path, size: int, sha256: str) -> StoredObject:
            key = upload_key(owner_id, sha256)
            self._client.upload_file(str(path), self._bucket, self._name(key))
            return StoredObject(key=key, bytes=size, sha256=sha256)

        return keep

    def put(self, key: str, file: BinaryIO) -> StoredObject:
        def keep(path: Path, size: int, sha256: str) -> StoredObject:
            self._client.upload_file(str(path), self._bucket, self._name(key))
            return StoredObject(key=key, bytes=size, sha256=sha256)

        with Incoming(self._spool, keep=keep) as copy:
            shutil.copyfileobj(file, copy, PIECE_BYTES)
            return copy.commit()

    def stat(self, key: str) -> int:
        with self._missing(key):
            head = self._client.head_object(Bucket=self._bucket, Key=self._name(key))
        return int(head["ContentLength"])

    def read(self, key: str, *, start: int = 0, stop: int | None = None) -> Generator[bytes]:
        size = self.stat(key)
        stop = size if stop is None else min(stop, size)
        if start >= stop:
            return _pieces(BytesIO())
        span = {"Range": f"bytes={start}-{stop - 1}"}
        with self._missing(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._name(key), **span)
        return _pieces(answer["Body"])

    def local_path(self, key: str) -> Path | None:
        checked(key)
        return None

    def fetch(self, key: str, destination: Path) -> None:
        with self._missing(key):
            self._client.download_file(self._bucket, self._name(key), str(destination))

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def delete_prefix(self, prefix: str) -> None:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._name(prefix) + "/"
        )
        for page in pages:
            for found in page.get("Contents", []):
                self._client.delete_object(Bucket=self._bucket, Key=found["Key"])

    def list(self) -> Iterator[Listed]:
        prefix = f"{self._prefix}/" if self._prefix else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=prefix
        )
        for page in pages:
            for found in page.get("Contents", []):
                yield Listed(
                    key=found["Key"].removeprefix(prefix),
                    bytes=found["Size"],
                    age_seconds=time.time() - found["LastModified"].timestamp(),
                )

    def sweep(self, *, older_than_seconds: float) -> None:
        sweep_folder(self._spool, before=time.time() - older_than_seconds)

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._spool).free

    def ping(self) -> None:
        self._client.head_bucket(Bucket=self._bucket)

    def _name(self, key: str) -> str:
        return f"{self._prefix}/{checked(key)}" if self._prefix else checked(key)

    @contextmanager
    def _missing(self, key: str) -> Iterator[None]:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - comes with boto3, an extra

        try:
            yield
        except ClientError as error:
            if error.response["Error"]["Code"] in _GONE:
                raise ObjectMissing(key) from None
            raise


def _pieces(body: Any) -> Generator[bytes]:  # noqa: ANN401 - botocore's, or a file
    with closing(body):
        while piece := body.read(PIECE_BYTES):
            yield piece
