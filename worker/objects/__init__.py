"""Where files live: a folder, or a bucket of any S3-compatible store."""

from worker.objects.base import Listed, ObjectMissing, ObjectStore, StoredObject
from worker.objects.incoming import Incoming, sweep_folder, sync_folder
from worker.objects.local import LocalStore
from worker.objects.opening import open_store
from worker.objects.s3 import S3Store

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
    "sync_folder",
]
