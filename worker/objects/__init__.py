"""Where files live: a folder, or a bucket of any S3-compatible store."""

from worker.objects.base import Listed, ObjectMissing, ObjectStore, StoredObject
from worker.objects.incoming import Incoming, sweep_folder
from worker.objects.local import LocalStore
from worker.objects.s3 import S3Store
from worker.settings import Settings

__all__ = [
    "Incoming",
    "Listed",
    "LocalStore",
    "ObjectMissing",
    "ObjectStore",
    "S3Store",
    "StoredObject",
    "open_store",
    "sweep_folder",
]


def open_store(settings: Settings) -> ObjectStore:
    """Open what `storage_url` names; a folder is created."""
    if settings.storage.startswith("s3://"):
        return S3Store(settings.storage, spool=settings.data_dir / "incoming")
    return LocalStore(settings.storage.removeprefix("file://"))
