"""The workers that live, as they report themselves."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, delete, insert, select, true, update

from worker.jobs.database import Database, moment, now
from worker.jobs.records import Worker
from worker.jobs.tables import workers

_SEEN_S = 30
_FORGOTTEN_S = 24 * 3600


class WorkerRegister:
    """Who is there, what they are held by, and whom an operator asked to go."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def report(
        self,
        worker_id: str,
        *,
        host: str,
        slots: int,
        sandbox: dict[str, str],
        classes: Collection[str] = (),
        silent_seconds: float | None = None,
    ) -> bool:
        """Say that this worker is alive; True if it is asked to drain.

        `silent_seconds`: since a message last made it look for work. Workers that have not been
        for a day are forgotten.
        """
        known = {
            "host": host,
            "slots": slots,
            "sandbox": sandbox,
            "classes": ",".join(classes),
            "last_claim_try": None if silent_seconds is None else now() - silent_seconds,
            "seen_at": now(),
        }
        with self._database.write() as connection:
            mine = update(workers).where(workers.c.id == worker_id).values(**known)
            row = connection.execute(mine.returning(workers.c.draining)).one_or_none()
            if row is None:
                new = insert(workers).values(id=worker_id, started_at=now(), **known)
                connection.execute(new)
            connection.execute(delete(workers).where(workers.c.seen_at < now() - _FORGOTTEN_S))
        return row is not None and bool(row.draining)

    def sign_off(self, worker_id: str) -> None:
        with self._database.write() as connection:
            connection.execute(delete(workers).where(workers.c.id == worker_id))

    def drain(self, named: Collection[str] | None) -> int:
        """Ask living workers, by id or host, to end when their jobs have; None is all of them.

        Gives how many were asked.
        """
        chosen: ColumnElement[bool] = true()
        if named is not None:
            chosen = workers.c.id.in_(named) | workers.c.host.in_(named)
        asked = update(workers).where(workers.c.seen_at > now() - _SEEN_S, chosen)
        with self._database.write() as connection:
            return connection.execute(asked.values(draining=True)).rowcount

    def alive(self) -> list[Worker]:
        """Give the workers that reported within the last 30 s."""
        rows = self._database.read(
            select(workers).where(workers.c.seen_at > now() - _SEEN_S).order_by(workers.c.id)
        )
        return [
            Worker(
                id=row.id,
                host=row.host,
                slots=row.slots,
                sandbox=row.sandbox,
                classes=tuple(name for name in row.classes.split(",") if name),
                last_claim_try=moment(row.last_claim_try) if row.last_claim_try else None,
                draining=row.draining,
                started_at=moment(row.started_at),
                seen_at=moment(row.seen_at),
            )
            for row in rows
        ]
