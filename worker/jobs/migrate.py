"""Create the schema, or upgrade it. Two processes may try at the same time."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from worker.jobs.database import connected

_SCRIPTS = Path(__file__).parent / "migrations"
_LOCK = 0x6D6F64656C  # any number; ours spells "model"


def migrate(url: str) -> None:
    """Bring the database to the newest schema; nothing happens when it is there already."""
    with connected(url) as database, database.write() as connection:
        _lock(connection)
        config = Config()
        config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _lock(connection: Connection) -> None:
    # On SQLite the transaction itself is the lock.
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
