"""Programs that tests start: found, given a port, waited for, stopped."""

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest


def installed(name: str, folder: str | None = None) -> Path:
    """Where a program is; without it the test is left out, or fails where it is required."""
    found = [Path(path) for path in [shutil.which(name)] if path]
    if folder:
        found += sorted(Path("/").glob(f"{folder.lstrip('/')}/{name}"))
    if found:
        return found[-1]
    if os.environ.get("CI") == "true" or os.environ.get("MODELPRESS_REQUIRE_SERVERS") == "1":
        pytest.fail(f"{name} is not installed, and servers are required here")
    pytest.skip(f"{name} is not installed")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_for_port(process: subprocess.Popen[bytes], port: int, *, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"{process.args!r} ended with {process.returncode}")
        with socket.socket() as client:
            client.settimeout(0.5)
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"{process.args!r} does not listen on port {port} after {seconds:.0f} s")


def stop(process: subprocess.Popen[bytes], *, seconds: float = 10) -> None:
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
