"""R9: requests made from the OpenAPI document by schemathesis, all of its checks.

    python -m benchmarks.openapi [EXAMPLES]

Prints one JSON line. The web application runs in this process; a thread ends its jobs at once.
"""

import json
import sys
import tempfile
import threading
from pathlib import Path

import httpx
import uvicorn

from app.main import create_app
from tests.openapi.driver import requests
from worker.services import build_services
from worker.settings import Settings


def main(examples: int = 100) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), free_disk_reserve_bytes=0)
        services = build_services(settings)
        services.migrate()
        server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_config=None))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            thread.join(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                figures = requests(client, services, examples=examples)
        finally:
            server.should_exit = True
            thread.join()
            services.close()
    said = figures.pop("said")
    print(json.dumps(figures))
    if figures["failures"]:
        print(said, file=sys.stderr)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
