"""The one place where settings become live objects."""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from worker.broker import Publisher, celery_app, make_folders
from worker.jobs import (
    ArtifactStore,
    Database,
    Figures,
    JobStore,
    KeyStore,
    Leases,
    Retention,
    UploadStore,
    UsageStore,
    WorkerRegister,
    migrate,
)
from worker.objects import ObjectStore, open_store
from worker.settings import Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the web process and the workers share."""

    settings: Settings
    database: Database
    jobs: JobStore
    artifacts: ArtifactStore
    leases: Leases
    keys: KeyStore
    usage: UsageStore
    uploads: UploadStore
    retention: Retention
    workers: WorkerRegister
    figures: Figures
    objects: ObjectStore
    publisher: Publisher

    def enqueue(self, job_id: str) -> None:
        """Tell the workers of a queued job; returns at once and never fails."""
        self.publisher.enqueue(job_id)

    def discard(self, keys: Iterable[str]) -> None:
        """Delete objects that nothing refers to any more; what fails is only logged."""
        for key in keys:
            with _logged(f"object {key} could not be deleted"):
                self.objects.delete(key)

    def migrate(self) -> None:
        """Create or upgrade the schema."""
        migrate(self.settings.database)

    def close(self) -> None:
        self.database.close()


def build_services(settings: Settings, *, pooled: bool = True) -> Services:
    """Build everything the settings describe; connections are made when first used."""
    make_folders(settings)
    database = Database(settings.database, pooled=pooled)
    leases = Leases(
        database,
        seconds=settings.lease_seconds,
        max_losses=settings.max_losses,
        small_bytes=settings.small_job_bytes,
    )
    return Services(
        settings=settings,
        database=database,
        jobs=JobStore(database),
        artifacts=ArtifactStore(database),
        leases=leases,
        workers=WorkerRegister(database),
        figures=Figures(database, small_bytes=settings.small_job_bytes),
        keys=KeyStore(database),
        usage=UsageStore(database),
        uploads=UploadStore(database),
        retention=Retention(database),
        objects=open_store(settings),
        publisher=Publisher(celery_app(settings), size_class=leases.size_class),
    )


@contextlib.contextmanager
def _logged(what: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        logger.exception(what)
