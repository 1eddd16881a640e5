"""The web server, on a socket of `modelpress serve` that outlives this process."""

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


def main(descriptor: int) -> None:
    """Serve until SIGTERM."""
    set_up_logging(Settings().log_format)
    config = uvicorn.Config("app.main:create_app", factory=True, **OPTIONS)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
