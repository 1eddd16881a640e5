"""Removing what is kept no longer: records by age, and stored files that no record knows."""

import re
from dataclasses import dataclass, field

from worker.jobs import Expired, Keeping
from worker.services import Services

_ORPHAN_SECONDS = 24 * 3600  # a file is stored before it is recorded: give that time
_OURS = re.compile(r"[^/]+/(uploads|results)/.+")


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What went, or would go."""

    expired: list[Expired] = field(default_factory=list)
    orphans: dict[str, int] = field(default_factory=dict)  # bytes by key

    @property
    def bytes(self) -> int:
        return sum(one.bytes for one in self.expired) + sum(self.orphans.values())


def expire(services: Services, *, dry_run: bool = False) -> list[Expired]:
    """Remove the records whose time is over, with their files."""
    settings = services.settings
    keeping = Keeping(
        uploads_days=settings.keep_uploads_days,
        results_days=settings.keep_results_days,
        jobs_days=settings.keep_jobs_days,
    )
    due = services.retention.due(keeping)
    if not dry_run:
        for expired in due:
            services.discard(services.retention.drop(expired))
        services.retention.forget_usage()
    return due


def collect(services: Services, *, dry_run: bool = False) -> Collected:
    """Remove what is expired, then every stored file that no record has known for a day.

    All files are looked at, so this is for an operator's command, not for every minute.
    """
    expired = expire(services, dry_run=dry_run)
    stored = {
        one.key: one.bytes
        for one in services.objects.list()
        if one.age_seconds > _ORPHAN_SECONDS and _OURS.fullmatch(one.key)
    }
    for key in services.retention.referenced():  # asked last: what was recorded meanwhile stays
        stored.pop(key, None)
    if not dry_run:
        services.discard(stored)
    return Collected(expired=expired, orphans=stored)
