"""R9: requests made from the OpenAPI document, by schemathesis, against the web application."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from sqlalchemy.exc import SQLAlchemyError

from worker.jobs import Failure, JobError, JobStatus, ResultFile
from worker.services import Services

ROOT = Path(__file__).parents[2]
RESULTS = {
    "model.onnx": b"smaller",
    "report.json": b"{}",
    "report.html": b"<p>",
    "bundle.zip": b"PK",
}
ANSWERED = re.compile(
    r'modelpress_http_requests_total\{method="(\w+)",route="([^"]+)",status="2\d\d"\}'
)


def requests(client: httpx.Client, services: Services, *, examples: int) -> dict[str, object]:
    """Figures of one run; what failed is in `said`."""
    with ending_jobs(services):
        run = subprocess.run(
            [Path(sys.executable).parent / "schemathesis", "run",
             f"{client.base_url}/openapi.json", "--max-examples", str(examples),
             "--seed", "1", "--continue-on-failure", "--no-color", "--warnings", "off",
             "--request-timeout", "120"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
    cases = re.search(r"(\d+) generated", run.stdout)
    paths = client.get("/openapi.json").json()["paths"]
    operations = {(method.upper(), path) for path in paths for method in paths[path]}
    answered = set(ANSWERED.findall(client.get("/metrics").text))
    return {
        "bar": "R9",
        "examples": examples,
        "cases": int(cases[1]) if cases else 0,
        "failures": len(re.findall(r"^- ST\d+", run.stdout, re.MULTILINE)),
        "operations": len(operations),
        "never_2xx": sorted(" ".join(one) for one in operations - answered),
        "exit": run.returncode,
        "said": run.stdout + run.stderr,
    }


@contextmanager
def ending_jobs(services: Services) -> Iterator[None]:
    """Have every queued job end at once, so that there are results to ask for."""
    stopped = threading.Event()

    def work() -> None:
        while not stopped.wait(0.02):
            # A request has deleted a job meanwhile, or keeps the database.
            with suppress(JobError, OSError, SQLAlchemyError):
                services.workers.report("test", host="here", slots=1, sandbox={})
                for job in services.jobs.page("local", status=JobStatus.QUEUED, limit=5).items:
                    end(services, job.id)

    thread = threading.Thread(target=work)
    services.workers.report("test", host="here", slots=1, sandbox={})
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def end(services: Services, job_id: str) -> None:
    """Every other job fails, so that there are some to retry."""
    claimed = services.leases.claim(job_id, holder="test")
    if claimed is None:
        return
    if int(job_id[-1], 16) % 2:
        failure = Failure(code="invalid_model", detail="so it shall be")
        services.leases.fail(claimed, failure)
        return
    results = {name: stored(services, content) for name, content in RESULTS.items()}
    services.leases.publish(claimed, results=results, summary={}, warnings=[], sandbox={})


def stored(services: Services, content: bytes) -> ResultFile:
    with services.objects.receive("local") as incoming:
        incoming.write(content)
        kept = incoming.commit()
    return ResultFile(key=kept.key, bytes=kept.bytes, sha256=kept.sha256)
