"""Which uploads may begin: how many at a time, how fast, and into how much room."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from app.access import Identity
from app.limits import stated_length
from app.rates import Rate, too_many
from worker.jobs import Quota, StorageQuotaExceeded
from worker.services import Services
from worker.settings import Settings

BUSY_S = 5


class Admission:
    """The uploads that one web process takes now."""

    def __init__(self, settings: Settings) -> None:
        self._all = settings.max_uploads
        self._each = settings.max_owner_uploads
        self._rate = Rate(settings.max_owner_uploads_per_minute, seconds=60)
        self._now: Counter[str] = Counter()

    def count(self, identity: Identity) -> None:
        """Count an upload that begins.

        Raises:
            Refusal: too_many_requests.
        """
        if identity.key_id is not None:
            self._rate.take(identity.owner_id)

    @contextmanager
    def place(self, identity: Identity) -> Iterator[None]:
        """One of the places for uploads.

        Raises:
            Refusal: too_many_requests, if all, or all that the owner may have, are taken.
        """
        owner_id = identity.owner_id
        mine = self._each if identity.key_id is not None else self._all
        if self._now.total() >= self._all or self._now[owner_id] >= mine:
            raise too_many("uploads at a time", seconds=BUSY_S)
        self._now[owner_id] += 1
        try:
            yield
        finally:
            self._now[owner_id] -= 1
            if not self._now[owner_id]:
                del self._now[owner_id]


@asynccontextmanager
async def admitted(request: Request, identity: Identity) -> AsyncIterator[None]:
    """Let an upload in, before its body is read.

    Raises:
        Refusal, StorageQuotaExceeded: it may not come in now, or there is no room for it.
    """
    services: Services = request.app.state.services
    admission: Admission = request.app.state.admission
    with admission.place(identity):
        admission.count(identity)
        await check_room(services, identity, stated_length(request) or 0)
        yield


async def check_room(services: Services, identity: Identity, more_bytes: int) -> None:
    """Refuse bytes for which the owner has no room, as far as that is known beforehand."""
    limit = quota_of(services.settings, identity).stored_bytes
    if not limit:
        return
    stored = await run_in_threadpool(services.usage.stored_bytes, identity.owner_id)
    if stored + more_bytes > limit:
        raise StorageQuotaExceeded(limit)


def quota_of(settings: Settings, identity: Identity) -> Quota:
    """The limits of whoever asks: owners of keys have some, the one local user has not."""
    if identity.key_id is None:
        return Quota(all_queued_jobs=settings.max_queued_jobs)
    return Quota(
        stored_bytes=settings.max_owner_bytes,
        queued_jobs=settings.max_owner_queued_jobs,
        jobs_per_day=settings.max_owner_jobs_per_day,
        cpu_seconds_per_day=settings.max_owner_cpu_seconds_per_day,
        all_queued_jobs=settings.max_queued_jobs,
    )
