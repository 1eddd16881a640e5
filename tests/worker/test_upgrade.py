"""A database of each earlier schema, with jobs in every state, is brought to the newest one."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import NullPool, create_engine, insert, inspect, select, text

from worker import jobs as package
from worker.jobs import (
    Failure,
    Job,
    JobStatus,
    JobStore,
    Leases,
    NewArtifact,
    NewJob,
    ResultFile,
    migrate,
)
from worker.jobs.database import Database, connected
from worker.jobs.tables import metadata

MIGRATIONS = Path(package.__file__).parent / "migrations"
ME = "local"
OLD = [file.name[1:5] for file in sorted((MIGRATIONS / "versions").glob("v*.py"))]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'old.db'}"
    server = request.getfixturevalue("postgres_server")
    name = f"old_{uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    return f"{server.rpartition('/')[0]}/{name}"


@pytest.fixture
def today(tmp_path: Path) -> Iterator[Database]:
    """A database of the newest schema, with a job in each state."""
    url = f"sqlite:///{tmp_path / 'today.db'}"
    migrate(url)
    database = Database(url)
    store, leases = JobStore(database), Leases(database, seconds=1e6, max_losses=3)
    for _ in range(5):
        store.create(new_job())
    running, succeeded, failed, canceled = (leases.claim_next(holder="h") for _ in range(4))
    assert running
    assert succeeded
    assert failed
    assert canceled
    file = ResultFile(key="k", bytes=7, sha256="0" * 64)
    leases.publish(
        succeeded, results={"model.onnx": file}, summary={"drop": 0.5}, warnings=[], sandbox={}
    )
    leases.fail(failed, Failure(code="invalid_model", detail="no model"))
    store.cancel(ME, canceled.id)
    leases.canceled(canceled)
    yield database
    database.close()


def new_job() -> NewJob:
    sha256 = uuid4().hex * 2
    model = NewArtifact(name="n", format="onnx", bytes=5, sha256=sha256, key=sha256)
    return NewJob(owner_id=ME, name="n", recipe={"passes": "auto"}, model=model)


def as_it_was(today: Database, url: str, revision: str) -> None:
    """Fill a database of this earlier schema with what `today` holds."""
    with connected(url) as database, database.write() as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        there = inspect(connection)
        for table in metadata.sorted_tables:
            if not there.has_table(table.name):
                continue
            columns = {column["name"] for column in there.get_columns(table.name)}
            for row in today.read(select(table)):
                kept = {key: value for key, value in row._mapping.items() if key in columns}
                connection.execute(insert(table).values(kept))


def seen(database: Database) -> dict[str, Job]:
    return {job.id: job for job in JobStore(database).page(ME).items}


@pytest.mark.parametrize("revision", OLD)
def test_an_upgrade_keeps_every_job_in_its_state(
    today: Database, empty_url: str, revision: str
) -> None:
    as_it_was(today, empty_url, revision)
    migrate(empty_url)
    with connected(empty_url) as upgraded:
        before, after = seen(today), seen(upgraded)
        assert {job.status for job in after.values()} == set(JobStatus)
        assert after == before
        leases = Leases(upgraded, seconds=30, max_losses=3)
        claimed = leases.claim_next(holder="h", classes=["small"])
        assert claimed is not None
        assert before[claimed.id].status == "queued"
        running = next(job for job in before.values() if job.status == "running")
        assert leases.renew(running)


def test_the_schema_of_a_newer_version_is_left_alone(empty_url: str) -> None:
    migrate(empty_url)
    with connected(empty_url) as database:
        with database.write() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        migrate(empty_url)
        (row,) = database.read(text("SELECT version_num FROM alembic_version"))
    assert row.version_num == "9999"
