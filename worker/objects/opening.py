"""Which store an address names."""

from pathlib import Path

from worker.objects.base import ObjectStore
from worker.objects.local import LocalStore
from worker.objects.s3 import S3Store
from worker.settings import Settings


def open_store(settings: Settings) -> ObjectStore:
    """Open what `storage_url` names; a folder is created."""
    return open_url(settings.storage, spool=settings.data_dir / "incoming")


def open_url(url: str, *, spool: Path) -> ObjectStore:
    """Open `s3://bucket/prefix`, with a folder for what is on its way; or a folder."""
    if url.startswith("s3://"):
        return S3Store(url, spool=spool)
    return LocalStore(url.removeprefix("file://"))
