"""R8: wrong requests with fixed seeds against a service of its own. One JSON line.

python -m benchmarks.fuzz_uploads [NUMBER]

Models, archives, forms, recipes, resumable uploads and raw HTTP in turn; what is accepted is
worked on by the service's worker meanwhile.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.driver import fuzz, left_behind
from tests.servers import free_port, stop, wait_for_port
from tests.system.service import descendants


def resident_mb(parent: int) -> float:
    """Memory of the web process."""
    for pid in descendants(parent):
        if b"app.web" in Path(f"/proc/{pid}/cmdline").read_bytes():
            status = Path(f"/proc/{pid}/status").read_text()
            return int(status.split("VmRSS:")[1].split()[0]) / 1024
    return 0.0


def main(number: int = 2000) -> None:
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [Path(sys.executable).parent / "modelpress", "serve", "--port", str(port)]
        environment = {**os.environ, "MODELPRESS_MAX_QUEUED_JOBS": "0"}
        with (Path(folder) / "log").open("w") as log:
            server = subprocess.Popen(
                [*command, "--data-dir", f"{folder}/data"],
                env=environment,
                stdout=log,
                stderr=log,
            )
        try:
            wait_for_port(server, port)
            fuzz(port, number=100, first=10**6)  # caches and pools, not leaks
            before, started = resident_mb(server.pid), time.perf_counter()
            found = fuzz(port, number=number)
            found["seconds"] = round(time.perf_counter() - started, 1)
            found["web_grew_mb"] = round(resident_mb(server.pid) - before, 1)
            lives = server.poll() is None
            # Files that a worker fetches or makes are known once its job has ended.
            found["left"] = [name for name in left_behind(Path(folder) / "data") if "." in name]
        finally:
            stop(server, seconds=60)
        said = (Path(folder) / "log").read_text()
    deaths = said.count("is started again") + (not lives)
    print(json.dumps({"bar": "R8"} | found | {"deaths": deaths}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
