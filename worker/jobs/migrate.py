"""Create the schema, or upgrade it. Two processes may try at the same time."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from worker.jobs.database import connected

_SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 0x6D6F64656C  # any number; ours spells "model"


def migrate(url: str) -> None:
    """Bring the database to our newest schema; nothing happens when it is there, or beyond.

    A newer version's schema is read and written by us too: the two may run side by side.
    """
    with connected(url) as database, database.write() as connection:
        _lock(connection)
        config = Config()
        config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        if not _is_newer(connection, config):
            command.upgrade(config, "head")


def _is_newer(connection: Connection, config: Config) -> bool:
    """Whether a newer version of ours has been here. Revisions are numbers of four digits."""
    there = MigrationContext.configure(connection).get_current_revision()
    ours = ScriptDirectory.from_config(config).get_current_head()
    return there is not None and ours is not None and there > ours


def _lock(connection: Connection) -> None:
    # On SQLite the transaction itself is the lock.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
