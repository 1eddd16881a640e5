"""The records, over SQLite and a real PostgreSQL: every test that asks for them runs twice."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import NullPool, create_engine, text

from worker.jobs import ArtifactStore, Database, JobStore, Leases, migrate
from worker.jobs.database import connected
from worker.jobs.tables import metadata


@pytest.fixture(scope="module")
def postgres_url(postgres_server: str) -> str:
    """A database of this file's own, with the schema."""
    name = f"jobs_{uuid4().hex}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = postgres_server.rpartition("/")[0] + f"/{name}"
    migrate(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'jobs.db'}"
        migrate(url)
        return url
    url = request.getfixturevalue("postgres_url")
    with connected(url) as database, database.write() as connection:
        for table in metadata.sorted_tables:
            connection.execute(table.delete())
    return url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


@pytest.fixture
def artifacts(database: Database) -> ArtifactStore:
    return ArtifactStore(database)


@pytest.fixture
def leases(database: Database) -> Leases:
    return Leases(database, seconds=30, max_losses=3)
