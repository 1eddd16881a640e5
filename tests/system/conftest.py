"""Services for the system tests, over both backings."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import NullPool, create_engine, text

from tests.swift import BUCKET
from tests.system.service import Service


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services over one data folder; what still runs at the end is killed."""
    started: list[Service] = []

    def start(**settings: object) -> Service:
        service = Service(tmp_path / "data", **settings)
        started.append(service)
        return service

    yield start
    for service in started:
        service.client.close()
        if service.process.poll() is None:
            service.kill_everything()


@pytest.fixture
def scaled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Settings of a real Redis, PostgreSQL and S3 store; a database of the test's own."""
    server = request.getfixturevalue("postgres_server")
    name = f"service_{uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    for variable, value in request.getfixturevalue("s3_server").items():
        monkeypatch.setenv(variable, value)
    return {
        "broker_url": request.getfixturevalue("redis_server"),
        "database_url": server.rpartition("/")[0] + f"/{name}",
        "storage_url": f"s3://{BUCKET}/{name}",
    }


@pytest.fixture(params=["embedded", "scaled"])
def backing(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of the embedded default, and of the scaled set."""
    return {} if request.param == "embedded" else request.getfixturevalue("scaled")
