"""compress and inspect: in the same sealed child as the service's jobs."""

import os
import tempfile
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.cli import given
from app.cli.bundle import with_external_data
from app.cli.metric import scorer
from app.cli.progress import shown
from app.cli.refusals import CannotDo
from worker.isolation import (
    Ended,
    Limits,
    Request,
    Score,
    default_limits,
    open_result,
    remove_folder,
    run_child,
)
from worker.isolation.limits import usable_memory
from worker.shelf import Shelf, digest, shelf_key

DAY_SECONDS = 24 * 3600.0
CACHE_BYTES = 5 << 30
"""Room for what searches found out, below the user's cache folder."""


def compress(arguments: Namespace) -> Mapping[str, Any]:
    """Compress a model into a folder; the report.

    Raises:
        CannotDo: with the code that the service would give.
    """
    model = given.file(arguments.model, "the model")
    calibration = given.optional_file(arguments.calibration, "--calibration")
    evaluation = given.optional_file(arguments.evaluation, "--evaluation")
    metric = given.optional_file(arguments.metric, "--metric")
    partner = given.optional_file(arguments.partner, "--partner")
    recipe, inputs = given.recipe(arguments.recipe), given.inputs(arguments.inputs)
    with _output(arguments.out) as out, _workplace(out) as folder:
        request = Request(
            kind="compress",
            model=str(with_external_data(model, folder)),
            name=model.name,
            recipe=recipe,
            calibration=_text(calibration),
            evaluation=_text(evaluation),
            partner=_text(partner),
            inputs=inputs,
            cache=None if arguments.no_cache else "cache",
            metric=metric.name if metric else None,
        )
        with _remembering(arguments, folder, (model, calibration, evaluation, partner)):
            score = scorer(metric) if metric else None
            result = _run(request, folder, sandbox=_sandbox(arguments), score=score)
        _publish(folder, result["files"], out)
    report: Mapping[str, Any] = result["report"]
    return report


def inspect(arguments: Namespace) -> Mapping[str, Any]:
    """Say what a model is.

    Raises:
        CannotDo: with the code that the service would give.
    """
    model = given.file(arguments.model, "the model")
    inputs = given.inputs(arguments.inputs)
    with _workplace(None) as folder:
        path = str(with_external_data(model, folder))
        request = Request(kind="inspect", model=path, name=model.name, inputs=inputs)
        result = _run(request, folder, sandbox=_sandbox(arguments))
    inspection: Mapping[str, Any] = result["inspection"]
    return inspection


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _sandbox(arguments: Namespace) -> str:
    return "off" if arguments.no_sandbox else "auto"


@contextmanager
def _output(given_folder: str) -> Iterator[Path]:
    """The folder of the results; one that was made for nothing is taken away again."""
    is_new = not Path(given_folder).exists()
    out = given.folder(given_folder)
    try:
        yield out
    finally:
        if is_new and not any(out.iterdir()):
            out.rmdir()


@contextmanager
def _workplace(beside: Path | None) -> Iterator[Path]:
    """A folder for the child, where its results need only be renamed."""
    folder = Path(tempfile.mkdtemp(prefix=".modelpress-", dir=beside))
    try:
        yield folder
    finally:
        remove_folder(folder)


@contextmanager
def _remembering(
    arguments: Namespace, folder: Path, files: Sequence[Path | None]
) -> Iterator[None]:
    """Lend the child what earlier runs on these files found out, and keep what it adds."""
    if arguments.no_cache:
        yield
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    shelf = Shelf(base / "modelpress", CACHE_BYTES)
    key = shelf_key("local", [digest(path) if path else "" for path in files])
    shelf.lend(key, folder / "cache")
    yield
    shelf.take_back(key, folder / "cache")


def _limits(request: Request) -> Limits:
    """Generous: it is the user's own machine, and Ctrl-C is at hand."""
    sizes = [Path(path).stat().st_size for path in request.paths()]
    limits = default_limits(sum(sizes), wall_seconds=DAY_SECONDS)
    return replace(limits, memory_bytes=usable_memory() * 3 // 4)


def _run(
    request: Request, folder: Path, *, sandbox: str, score: Score | None = None
) -> Mapping[str, Any]:
    with shown() as tell:
        ended = run_child(
            request,
            folder,
            limits=_limits(request),
            sandbox=sandbox,
            on_message=lambda said: tell(said.stage, said.share, said.message),
            stop=lambda: None,
            score=score,
        )
    if ended.result is None or ended.error is not None:
        raise _refusal(ended)
    return ended.result


def _refusal(ended: Ended) -> CannotDo:
    refusal = CannotDo.from_problem(ended.error or {})
    if refusal.code == "internal_error" and ended.stderr:
        # There is no operator's log here: the user is the operator.
        refusal.hint = f"please report it, with this:\n{ended.stderr[-4000:]}"
    return refusal


def _publish(folder: Path, names: list[str], out: Path) -> None:
    """Move the results into place, when all of them are there."""
    umask = os.umask(0)
    os.umask(umask)
    for name in names:
        with open_result(folder, name) as file:
            os.fchown(file.fileno(), os.geteuid(), os.getegid())
            os.fchmod(file.fileno(), 0o666 & ~umask)
    stale = [path for pattern in given.STALE for path in out.glob(pattern)]
    for path in stale:
        path.unlink()
    for name in names:
        (folder / name).replace(out / Path(name).name)
