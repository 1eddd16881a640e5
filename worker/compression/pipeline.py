"""Passes in order; each result is reloaded and run in stock ONNX Runtime before it counts."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from worker.compression import graph
from worker.compression.assessment import Made, assess
from worker.compression.errors import (
    CompressionError,
    PassFailed,
    first_line,
)
from worker.compression.passes import FILES, AnyPass, Context, Pass
from worker.compression.report import Report, listening
from worker.compression.subject import Subject


def by_hand(subject: Subject, passes: Sequence[AnyPass], out: Path) -> Report:
    """Do what was asked and report it, with a verdict in plain words."""
    made = run_passes(subject, passes, first=0.05, last=0.5)
    return assess(subject, made, out=out)


def run_passes(
    subject: Subject,
    passes: Sequence[AnyPass],
    *,
    first: float,
    last: float,
    done: Sequence[Made] = (),
) -> list[Made]:
    """Apply `passes` after those in `done`, filling the progress from `first` to `last`.

    Raises:
        CompressionError: a pass refused, or its result does not run.
    """
    made = list(done)
    width = (last - first) / max(len(passes), 1)
    for number, pass_ in enumerate(passes):
        start = first + number * width
        source = made[-1].path if made else subject.original
        made.append(_run(subject, pass_, source, subject.context(start, start + width)))
    return made


def _run(subject: Subject, pass_: Pass, source: Path, context: Context) -> Made:
    context.progress(0, pass_.method.replace("_", " "))
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="pass-", dir=subject.workdir))
    with listening() as heard:
        model = _applied(pass_, source, replace(context, workdir=folder, source=source))
    path = folder / "model.onnx"
    graph.save(model, path)
    notes, extra = graph.notes(model), dict(model.meta.get("extra", {}))
    graph.release(model)
    _check(path, pass_, subject)
    return Made(
        path=path,
        pass_=pass_,
        seconds=time.monotonic() - started,
        warnings=heard(),
        notes=notes,
        extra=extra,
        files=sorted((folder / FILES).glob("*")),
    )


def _applied(pass_: Pass, source: Path, context: Context) -> ir.Model:
    try:
        return pass_.apply(graph.load(source), context)
    except (CompressionError, MemoryError):
        raise
    except Exception as error:
        raise PassFailed(
            f"{pass_.method} failed on this model: {type(error).__name__}: {first_line(error)}",
            hint="leave this method out of the recipe, or narrow it to other layers",
        ) from error


def _check(path: Path, pass_: Pass, subject: Subject) -> None:
    """What is handed out is the file, so the file is what must load and run."""
    try:
        graph.session(path).run(None, subject.feeds[0])
    except MemoryError:
        raise
    except Exception as error:
        raise PassFailed(
            f"the result of {pass_.method} does not run in ONNX Runtime: {first_line(error)}",
            hint="leave this method out of the recipe, or narrow it to other layers",
            code="result_does_not_run",
        ) from error
