"""The web application on a real socket, over real records and a real store; no worker."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from app.main import create_app
from app.web import OPTIONS
from worker.services import Services, build_services
from worker.settings import Settings

DIGITS = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="session")
def serving() -> Callable[[Settings], AbstractContextManager[tuple[httpx.Client, Services]]]:
    """Gives a server for settings, in a thread; with a client of it and its services."""
    return _serving


@contextmanager
def _serving(settings: Settings) -> Iterator[tuple[httpx.Client, Services]]:
    app = create_app(settings)
    config = uvicorn.Config(app, port=0, **OPTIONS | {"timeout_graceful_shutdown": 1})
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield client, app.state.services
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the schema, to copy: making one takes longer than a test."""
    folder = tmp_path_factory.mktemp("migrated")
    services = build_services(Settings(data_dir=folder))
    services.migrate()
    services.close()
    return folder / "modelpress.db"


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    """Embedded settings in a folder of their own, with small limits."""
    (tmp_path / "modelpress.db").write_bytes(migrated.read_bytes())
    return Settings(
        data_dir=tmp_path,
        free_disk_reserve_bytes=0,
        max_model_bytes=4_000_000,
        max_dataset_bytes=4_000_000,
    )


@pytest.fixture
def served(serving, settings: Settings) -> Iterator[tuple[httpx.Client, Services]]:
    with serving(settings) as both:
        yield both


@pytest.fixture(scope="session")
def shared(tmp_path_factory, migrated, serving) -> Iterator[tuple[httpx.Client, Settings]]:
    """One server for tests that leave nothing in it, or that do not care what is in it."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "modelpress.db").write_bytes(migrated.read_bytes())
    settings = Settings(data_dir=folder, free_disk_reserve_bytes=0, max_model_bytes=1_000_000)
    with serving(settings) as (client, _):
        yield client, settings


@pytest.fixture
def client(served: tuple[httpx.Client, Services]) -> httpx.Client:
    return served[0]


@pytest.fixture
def services(served: tuple[httpx.Client, Services]) -> Services:
    return served[1]


@pytest.fixture(scope="session")
def model() -> bytes:
    """A real ONNX model."""
    return (DIGITS / "digits.onnx").read_bytes()


@pytest.fixture(scope="session")
def samples() -> bytes:
    return (DIGITS / "calibration.npz").read_bytes()
