"""What a job made, loaded and run by a second child before anyone gets it.

The child that worked on the upload may be a stranger's by now. What it says of its result
counts only as far as stock ONNX Runtime, in a fresh process that can only read, agrees.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from worker.isolation.ended import Cause, problem
from worker.isolation.messages import Request
from worker.isolation.process import EXIT, started
from worker.isolation.quiet import Quiet
from worker.isolation.results import UnsafeFile, open_result
from worker.isolation.supervise import Stop, Supervised

PROGRAM = "from worker.trial import check; code = check()" + EXIT
#: What a job that ended right at its limit still gets for this.
EXTRA_SECONDS = 5
#: What lies beside a model without being part of it.
BESIDE = (".json", ".html", ".zip", ".onnx")
REFUSED_CHARACTERS = 300
#: One word is what it has to say.
TOO_MANY = 2


class Recheck:
    """The second child of a job.

    It is started while the first one still writes its report: loading ONNX Runtime takes as
    long as all the rest.
    """

    def __init__(
        self, request: Request, first: Supervised, folder: Path, *, stop: Stop, quiet: Quiet
    ) -> None:
        wanted = first.wanted
        limits = replace(
            wanted.limits,
            wall_seconds=wanted.limits.wall_seconds + EXTRA_SECONDS,
            disk_bytes=1 << 20,
        )
        self._wanted = replace(wanted, writable=False, limits=limits)
        self._most_bytes = first.wanted.limits.disk_bytes
        self._request, self._folder, self._clock = request, folder, first.clock
        self._stop, self._quiet = stop, quiet
        self._stack = contextlib.ExitStack()
        self._child: Supervised | None = None
        self._said: list[dict[str, Any]] = []
        self._models: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def stopped_because(self) -> str | None:
        return self._child.stopped_because if self._child else None

    @property
    def output(self) -> str:
        return self._child.output.decode(errors="replace") if self._child else ""

    def prepare(self) -> Supervised:
        """Start the child, which seals itself, loads ONNX Runtime and waits."""
        if self._child is None:
            process = self._stack.enter_context(started(PROGRAM, self._folder))
            self._child = Supervised(
                process,
                self._wanted,
                self._folder,
                hear=self._hear,
                stop=self._stop,
                tick=self._quiet.step,
                clock=self._clock,
            )
            self._child.begin()
        return self._child

    def verdict(self, result: Mapping[str, Any]) -> tuple[Cause, dict[str, Any] | None]:
        """DONE, or why this result must not be published; the problem where that has a name."""
        if (wrong := _wrong_size(self._folder, result, most=self._most_bytes)) is not None:
            return Cause.FAILED, refused(wrong)
        self._models = [name for name in result.get("files", []) if name.endswith(".onnx")]
        child = self.prepare()
        self._quiet.processes.append(child.process)
        child.run()
        if child.verdict is not None:
            return child.verdict, None
        wrong = self._complaint(child)
        if wrong is None:
            return Cause.DONE, None
        limit = child.limit_in(f"{wrong}\n{self.output}")
        return (limit, None) if limit else (Cause.FAILED, refused(wrong))

    def _hear(self, message: dict[str, Any]) -> None:
        # It is not listened to before the first child has ended.
        if message == {"ready": True} and self._child is not None:
            self._child.answer({"check": self._models, "upload": self._request.model})
        elif len(self._said) < TOO_MANY:
            self._said.append(message)

    def _complaint(self, child: Supervised) -> str | None:
        """What the child has against the result."""
        if self._said == [{"checked": self._models}]:
            return None
        for said in self._said:
            if "refused" in said:
                return str(said["refused"])[:REFUSED_CHARACTERS]
        exited = child.process.ended
        how = f"signal {exited.signal}" if exited and exited.signal else "no answer"
        return f"loading it ended with {how}"


def _wrong_size(folder: Path, result: Mapping[str, Any], *, most: int) -> str | None:
    """What is wrong with the sizes that the report states, if anything."""
    report = result.get("report")
    after = report.get("after") if isinstance(report, Mapping) else None
    stated = after.get("bytes") if isinstance(after, Mapping) else None
    try:
        sizes = _sizes(folder, result.get("files", []))
    except UnsafeFile as error:
        return str(error)
    model = sizes.get("model.onnx")
    if model is None or not isinstance(stated, int):
        return "it has no model.onnx, or its report tells no size"
    if sum(sizes.values()) > most:  # holes take no disk, until somebody copies them
        return f"its files have more than {most} bytes"
    alone = all(name.startswith("front-") or name.endswith(BESIDE) for name in sizes)
    if model <= stated <= (model if alone else sum(sizes.values())):
        return None
    return f"the report tells of {stated} bytes, the file has {model}"


def _sizes(folder: Path, names: list[str]) -> dict[str, int]:
    sizes = {}
    for name in names:
        with open_result(folder, name) as file:
            sizes[PurePosixPath(name).name] = file.seek(0, os.SEEK_END)
    return sizes


def refused(what: str) -> dict[str, Any]:
    """The problem of a result that is not what its maker says."""
    return problem(
        f"the compressed model did not pass the check before it is handed out: {what}",
        code="result_refused",
        hint="try another recipe, and report it with the model if you can",
        stage="report",
    )
