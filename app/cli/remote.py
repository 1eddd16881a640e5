"""submit, status, wait, download, cancel: the same through a running service."""

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from app.cli import given
from app.cli.progress import shown
from app.cli.refusals import DONE, INTERNAL, NOT_BETTER, CannotDo, printable, verdict_code
from app.cli.service import Service, results

Job = Mapping[str, Any]


def submit(arguments: Namespace) -> int:
    """Send a model; print the id of its job, or wait for the job and fetch its results."""
    model = given.file(arguments.model, "the model")
    paths = {
        "model": model,
        "calibration": given.optional_file(arguments.calibration, "--calibration"),
        "evaluation": given.optional_file(arguments.evaluation, "--evaluation"),
        "partner": given.optional_file(arguments.partner, "--partner"),
    }
    recipe, inputs = given.recipe(arguments.recipe), given.inputs(arguments.inputs)
    fields = {
        "recipe": recipe if isinstance(recipe, str | None) else json.dumps(recipe),
        "inputs": None if inputs is None else json.dumps(inputs),
        "name": arguments.name,
    }
    if arguments.out:
        given.folder(arguments.out)
    with Service(arguments.server) as service:
        with ExitStack() as opened:
            files = {
                name: (path.name, opened.enter_context(path.open("rb")))
                for name, path in paths.items()
                if path is not None
            }
            job = service.submit(files, {k: v for k, v in fields.items() if v is not None})
        if not (arguments.wait or arguments.out):
            _print(job, arguments, brief=job["id"])
            return DONE
        sys.stderr.write(f"job {job['id']}\n")
        code = _await(service, job["id"], arguments)
        if arguments.out and code in (DONE, NOT_BETTER):
            _fetch(service, job["id"], arguments.out)
    return code


def status(arguments: Namespace) -> int:
    """Where a job stands, in one line."""
    with Service(arguments.server) as service:
        job = service.job(arguments.id)
    line = f"{job['status']} {job['stage']} {job['progress']:.0%} {job['message']}".rstrip()
    _print(job, arguments, brief=line)
    return DONE


def wait(arguments: Namespace) -> int:
    """Follow a job to its end; the exit code tells which."""
    with Service(arguments.server) as service:
        return _await(service, arguments.id, arguments)


def download(arguments: Namespace) -> int:
    """Fetch what a job has made."""
    given.folder(arguments.out)
    with Service(arguments.server) as service:
        _fetch(service, arguments.id, arguments.out)
    return DONE


def cancel(arguments: Namespace) -> int:
    """End a job."""
    with Service(arguments.server) as service:
        job = service.cancel(arguments.id)
    _print(job, arguments, brief=job["status"] if job["finished_at"] else "canceling")
    return DONE


def _await(service: Service, job_id: str, arguments: Namespace) -> int:
    with shown() as tell:
        for job in service.follow(job_id):
            tell(job["stage"], job["progress"], job["message"])
    summary = job["summary"] or {}
    if job["status"] == "failed":
        raise CannotDo.from_problem(job["error"] or {})
    _print(job, arguments, brief=summary.get("sentence") or job["status"])
    if job["status"] != "succeeded":
        return INTERNAL
    return verdict_code(summary.get("verdict"), fail_if_worse=arguments.fail_if_worse)


def _fetch(service: Service, job_id: str, out: str) -> None:
    names = results(service, job_id, Path(out).absolute())
    sys.stderr.write(f"{', '.join(names)} in {out}\n")


def _print(job: Job, arguments: Namespace, *, brief: str) -> None:
    content = json.dumps(job, indent=2) if arguments.json else printable(brief)
    sys.stdout.write(content + "\n")
