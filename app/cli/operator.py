"""What an operator does to the workers of the configured database."""

import sys
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from app.cli.refusals import BAD_INPUT, DONE, CannotDo
from worker.jobs import Worker
from worker.services import build_services
from worker.settings import Settings


def drain(named: Sequence[str], *, everyone: bool) -> int:
    """Ask workers to end when their jobs have; without names, list who lives."""
    services = build_services(Settings(), pooled=False)
    try:
        if not named and not everyone:
            for worker in services.workers.alive():
                sys.stdout.write(_line(worker))
            return DONE
        asked = services.workers.drain(None if everyone else named)
    except DBAPIError as error:
        raise CannotDo(
            f"the database cannot be asked: {error.orig}",
            code="unavailable",
            hint="set MODELPRESS_DATABASE_URL or MODELPRESS_DATA_DIR as for the workers",
        ) from None
    finally:
        services.close()
    sys.stdout.write(f"{asked} worker(s) end when their jobs have\n")
    return DONE if asked else BAD_INPUT


def _line(worker: Worker) -> str:
    state = "draining" if worker.draining else "working"
    classes = ",".join(worker.classes)
    return f"{worker.id}  {worker.host}  {worker.slots} slot(s)  {classes}  {state}\n"
