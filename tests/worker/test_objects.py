"""Objects: one contract, over a folder and every other store that is there."""

import errno
import hashlib
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from tests.swift import BUCKET
from worker.objects import (
    LocalStore,
    ObjectMissing,
    ObjectStore,
    S3Store,
    StoredObject,
    open_store,
)
from worker.settings import Settings


@pytest.fixture(params=["folder", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    """A folder, and a prefix of a bucket of a real store."""
    if request.param == "folder":
        return LocalStore(tmp_path / "objects")
    for name, value in request.getfixturevalue("s3_server").items():
        monkeypatch.setenv(name, value)
    url = f"s3://{BUCKET}/{uuid4().hex}"
    return open_store(Settings(data_dir=tmp_path, storage_url=url))


def upload(store: ObjectStore, content: bytes, **given: int) -> StoredObject:
    with store.receive("local", **given) as incoming:
        for start in range(0, len(content), 1000):
            incoming.write(content[start : start + 1000])
        return incoming.commit()


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_upload_comes_back_byte_for_byte(store: ObjectStore) -> None:
    content = os.urandom(3_500_000)
    kept = upload(store, content)
    assert (kept.bytes, kept.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert kept.key.startswith("local/")
    assert store.stat(kept.key) == len(content)
    assert b"".join(store.read(kept.key)) == content


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1), (5, 5), (1, None), (999_999, 1_000_001), (1_048_000, 2_000_000)]
)
def test_ranges_are_half_open(store: ObjectStore, start: int, stop: int | None) -> None:
    content = os.urandom(1_500_000)
    kept = upload(store, content)
    assert b"".join(store.read(kept.key, start=start, stop=stop)) == content[start:stop]


def test_the_spool_file_can_be_read_before_it_is_committed(store: ObjectStore) -> None:
    with store.receive("local") as incoming:
        incoming.write(b"PK\x03\x04")
        assert incoming.path.read_bytes() == b"PK\x03\x04"
        assert incoming.sha256 == hashlib.sha256(b"PK\x03\x04").hexdigest()


def test_an_aborted_upload_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    def fail_midway() -> None:
        with store.receive("local", expected_bytes=100_000) as incoming:
            incoming.write(b"half")
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        fail_midway()
    assert files(tmp_path) == []


def test_an_upload_that_is_shorter_than_announced_has_its_own_size(store: ObjectStore) -> None:
    kept = upload(store, b"short", expected_bytes=100_000)
    assert store.stat(kept.key) == 5


def test_a_disk_that_is_too_small_is_known_before_the_first_byte(
    store: ObjectStore, tmp_path: Path
) -> None:
    with pytest.raises(OSError, match=r"No space|too large") as refused:
        store.receive("local", expected_bytes=2**50)
    assert refused.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert files(tmp_path) == []


def test_equal_uploads_are_two_objects_until_the_record_drops_one(store: ObjectStore) -> None:
    first, second = upload(store, b"same"), upload(store, b"same")
    assert first.key != second.key
    assert first.sha256 in first.key
    store.delete(second.key)
    assert store.stat(first.key) == 4


def test_what_is_missing_is_said_to_be_missing(store: ObjectStore, tmp_path: Path) -> None:
    key = "local/uploads/00/none"
    for call in (store.stat, store.read, lambda key: store.fetch(key, tmp_path / "copy")):
        with pytest.raises(ObjectMissing):
            call(key)
    store.delete(key)
    store.delete_prefix("local/results/none")


@pytest.mark.parametrize(
    "key",
    ["../secret", "local/../../secret", "/etc/passwd", "local//x", "", ".incoming/x", "a\0b"],
)
def test_a_key_cannot_leave_the_store(store: ObjectStore, key: str) -> None:
    for call in (store.stat, store.read, store.local_path, store.delete, store.delete_prefix):
        with pytest.raises(ObjectMissing):
            call(key)


def test_results_are_put_fetched_and_deleted_together(
    store: ObjectStore, tmp_path: Path
) -> None:
    prefix = "local/results/job/1-lease"
    kept = store.put(f"{prefix}/model.onnx", io.BytesIO(b"model"))
    store.put(f"{prefix}/report.json", io.BytesIO(b"{}"))
    other = store.put("local/results/job/2-lease/model.onnx", io.BytesIO(b"other"))
    assert (kept.bytes, kept.sha256) == (5, hashlib.sha256(b"model").hexdigest())
    store.fetch(kept.key, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"model"
    store.delete_prefix(prefix)
    with pytest.raises(ObjectMissing):
        store.stat(kept.key)
    assert store.stat(other.key) == 5


def test_an_object_is_replaced_as_a_whole(store: ObjectStore) -> None:
    key = "local/results/job/1-lease/model.onnx"
    store.put(key, io.BytesIO(b"a" * 100_000))
    seen = set()
    writers = threading.Thread(
        target=lambda: [
            store.put(key, io.BytesIO(letter * 100_000)) for letter in (b"b", b"a") * 20
        ]
    )
    writers.start()
    while writers.is_alive():
        seen.add(b"".join(store.read(key)))
    writers.join()
    assert seen <= {b"a" * 100_000, b"b" * 100_000}


def test_deleting_and_storing_in_one_folder_do_not_hurt_each_other(store: ObjectStore) -> None:
    def store_and_delete(number: int) -> None:
        for turn in range(20):
            kept = store.put(f"local/shared/{number}-{turn}", io.BytesIO(b"x"))
            store.delete(kept.key)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(store_and_delete, range(8)))


def test_only_dead_uploads_are_swept(store: ObjectStore) -> None:
    with store.receive("local") as dead, store.receive("local") as alive:
        an_hour_ago = time.time() - 4000
        os.utime(dead.path, (an_hour_ago, an_hour_ago))
        store.sweep(older_than_seconds=3600)
        assert not dead.path.exists()
        assert alive.path.exists()


def test_files_are_for_their_own_user_only(store: ObjectStore, tmp_path: Path) -> None:
    upload(store, b"secret")
    for path in tmp_path.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_settings_say_which_store(tmp_path: Path) -> None:
    local = open_store(Settings(data_dir=tmp_path))
    assert isinstance(local, LocalStore)
    assert isinstance(open_store(Settings(data_dir=tmp_path, storage_url="s3://b/p")), S3Store)
    local.ping()
    assert local.free_bytes() > 0
