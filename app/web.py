"""The web server: on a socket of `modelpress serve`, or by itself as `python -m app.web`."""

import socket
import sys
from typing import Any

import uvicorn

from app.protocol import PatientProtocol
from worker.logs import set_up_logging
from worker.settings import Settings

OPTIONS: dict[str, Any] = {
    "http": PatientProtocol,
    "ws": "none",
    "log_config": None,  # ours
    "access_log": False,
    "server_header": False,
    "proxy_headers": False,
    "limit_concurrency": 500,
    "timeout_keep_alive": 5,
    "h11_max_incomplete_event_size": 16_384,
    # Open event streams would hold a stopping server for as long as their jobs run.
    "timeout_graceful_shutdown": 3,
}
"""How connections are served, to uvicorn."""


def main(descriptor: int | None = None) -> None:
    """Serve until SIGTERM: on a socket that is open already, or where the settings say."""
    settings = Settings()
    set_up_logging(settings.log_format)
    config = uvicorn.Config(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        **OPTIONS,
    )
    sockets = None if descriptor is None else [socket.socket(fileno=descriptor)]
    uvicorn.Server(config).run(sockets=sockets)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
