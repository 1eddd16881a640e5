"""`python -m benchmarks.overhead`: seconds that sandbox, lease and record cost a job.

A job over the digits example through `run_job` (claim, child, result on record) less the same
compression in a process of its own without any of it; in turns, medians.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from worker.jobs import NewArtifact, NewJob
from worker.services import Services, build_services
from worker.settings import Settings
from worker.tasks.attempt import run_job

DIGITS = Path(__file__).parents[1] / "examples" / "digits"
RECIPE = {"passes": [{"method": "graph_cleaning"}]}
ALONE = """
import sys
from pathlib import Path
from worker.compression import compress
from worker.ingest import ingest
model, out = Path(sys.argv[1]), Path(sys.argv[2])
taken = ingest(model, out / "model.onnx", workdir=out)
compress(taken.path, {"passes": [{"method": "graph_cleaning"}]}, out=out / "results")
"""


def through_the_service(services: Services) -> float:
    with services.objects.receive("local") as incoming:
        incoming.write((DIGITS / "digits.onnx").read_bytes())
        kept = incoming.commit()
    model = NewArtifact(
        name="digits.onnx", format="onnx", bytes=kept.bytes, sha256=kept.sha256, key=kept.key
    )
    began = time.monotonic()
    job = services.jobs.create(NewJob(owner_id="local", name="d", recipe=RECIPE, model=model))
    run_job(services, job.job.id)
    took = time.monotonic() - began
    if services.jobs.get("local", job.job.id).status != "succeeded":
        raise SystemExit("the job failed: there is nothing to compare")
    return took


def alone(folder: Path) -> float:
    folder.mkdir()
    began = time.monotonic()
    command = [sys.executable, "-c", ALONE, DIGITS / "digits.onnx", folder]
    subprocess.run(command, check=True, capture_output=True)
    return time.monotonic() - began


def main(turns: int = 7) -> None:
    with tempfile.TemporaryDirectory() as top:
        settings = Settings(data_dir=Path(top) / "data", cache_bytes=0)
        services = build_services(settings)
        services.migrate()
        pairs = [
            (through_the_service(services), alone(Path(top) / str(turn)))
            for turn in range(turns)
        ]
        services.close()
    served, bare = (median(times) for times in zip(*pairs, strict=True))
    figures = {
        "bench": "overhead",
        "service_seconds": round(served, 2),
        "alone_seconds": round(bare, 2),
        "overhead_seconds": round(median(a - b for a, b in pairs), 2),
        "bar_seconds": 0.7,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
