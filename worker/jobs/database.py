"""One way to talk to SQLite and PostgreSQL: short reads, and writes that lock first."""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    Connection,
    Double,
    Engine,
    Executable,
    NullPool,
    Row,
    create_engine,
    event,
    make_url,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

_PATIENCE_S = 10
_SQLITE: dict[str, Any] = {"timeout": _PATIENCE_S, "check_same_thread": False}
# A host that vanished must not hold a worker for the minutes that TCP takes by itself.
_POSTGRES = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "options": "-c statement_timeout=30000 -c idle_in_transaction_session_timeout=30000",
}


class now(GenericFunction[float]):  # noqa: N801 - it is used as a function
    """The database's clock in seconds since 1970: the clocks of the workers may differ."""

    type = Double()
    inherit_cache = True
    name = "modelpress_now"


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgres(element: now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401
    return "extract(epoch from clock_timestamp())"


def moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def make_engine(url: str, *, pooled: bool = True) -> Engine:
    """Make an engine; without a pool for processes that fork and must hold nothing open."""
    parsed = make_url(url)
    pool: dict[str, Any] = {} if pooled else {"poolclass": NullPool}
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, connect_args=_SQLITE, **pool)
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.get_driver_name() != "psycopg":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if pooled:
        pool = {"pool_pre_ping": True, "pool_recycle": 1800}
    return create_engine(parsed, connect_args=_POSTGRES, **pool)


def _configure_sqlite(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None  # the driver starts no transactions: _begin_sqlite does
    _write_ahead(connection)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL; SQLite itself does not wait where another process is about to do so."""
    patience = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > patience:
                raise
            time.sleep(0.02)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # Taking the write lock first: a transaction that reads and then writes would otherwise fail
    # at once, without waiting, when another one wrote in between.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


class Database:
    """An engine for the stores: `read` single statements, `write` in one transaction."""

    def __init__(self, url: str, *, pooled: bool = True) -> None:
        self.engine = make_engine(url, pooled=pooled)
        self._reading = _reading_engine(self.engine, url, pooled=pooled)

    def read(
        self, statement: Executable, values: Mapping[str, Any] | None = None
    ) -> list[Row[Any]]:
        """Run one statement; `values` are those of its bind parameters."""
        with self._reading.connect() as connection:
            return list(connection.execute(statement, values or {}).all())

    def write(self) -> AbstractContextManager[Connection]:
        return self.engine.begin()

    def close(self) -> None:
        self._reading.dispose()
        self.engine.dispose()


def _reading_engine(engine: Engine, url: str, *, pooled: bool) -> Engine:
    """An engine whose statements need no transaction.

    On SQLite it has connections of its own: switching a shared one to and fro costs more than
    the read of a job.
    """
    if engine.dialect.name != "sqlite":
        return engine.execution_options(isolation_level="AUTOCOMMIT")
    reading = create_engine(
        make_url(url),
        isolation_level="AUTOCOMMIT",
        connect_args=_SQLITE,
        poolclass=None if pooled else NullPool,
    )
    event.listen(reading, "connect", _configure_sqlite)
    return reading


@contextmanager
def connected(url: str) -> Iterator[Database]:
    """Use a database for a short while and leave nothing open."""
    database = Database(url, pooled=False)
    try:
        yield database
    finally:
        database.close()
