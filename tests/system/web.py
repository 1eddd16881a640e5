"""A web process by itself, as each host of a scaled deployment has one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.servers import free_port, stop, wait_for_port


class Web:
    """One web process with a disk of its own."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self._port = free_port()
        given = settings | {"data_dir": str(folder), "port": str(self._port)}
        self._environment = os.environ | {
            f"MODELPRESS_{name.upper()}": value for name, value in given.items()
        }
        self.folder = folder
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app.web"], env=self._environment, stderr=subprocess.DEVNULL
        )
        wait_for_port(self.process, self._port)
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=60)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.client.close()

    def stop(self) -> None:
        stop(self.process)
        self.client.close()
