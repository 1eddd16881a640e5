"""Which waiting job is next: size classes, age, owners. All workers ask here, whatever rang."""

from collections.abc import Collection
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, ScalarSelect, Select, and_, case, false, func, or_, select

from worker.jobs.database import now
from worker.jobs.records import JobStatus
from worker.jobs.tables import jobs

SizeClass = Literal["small", "large"]
SIZE_CLASSES: tuple[SizeClass, ...] = get_args(SizeClass)

#: After this long a large job stands in line like a small one: a stream of small ones must not
#: hold it up for ever.
_PATIENCE_SECONDS = 600


def is_small(small_bytes: int) -> ColumnElement[bool]:
    """Whether a job ends soon: little to read, or only to be looked into."""
    return or_(jobs.c.kind == "inspect", jobs.c.work_bytes <= small_bytes)


def waiting_jobs(
    *columns: Any,  # noqa: ANN401 - columns of jobs
    classes: Collection[str],
    small_bytes: int,
) -> Select[Any]:
    """The queued jobs of these classes, the next one first: owners take turns."""
    small = is_small(small_bytes)
    wanted = {"small": small, "large": and_(~small)}
    soon = case((or_(small, jobs.c.queued_at < now() - _PATIENCE_SECONDS), 0), else_=1)
    return (
        select(*columns)
        .where(jobs.c.status == JobStatus.QUEUED)
        .where(or_(false(), *(wanted[name] for name in SIZE_CLASSES if name in classes)))
        .order_by(soon, _served_at().asc().nulls_first(), jobs.c.queued_at, jobs.c.id)
    )


def _served_at() -> ScalarSelect[float]:
    """When the owner of a job last had one started: nobody waits behind another's hundred."""
    served = jobs.alias()
    mine = served.c.owner_id == jobs.c.owner_id
    return select(func.max(served.c.started_at)).where(mine).correlate(jobs).scalar_subquery()
