"""One job in a child of its own: from the request to how it ended."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from worker.isolation.ended import (
    EXIT_UNSEALED,
    Cause,
    Ended,
    cause_of_signal,
    explain,
    problem,
)
from worker.isolation.folders import give, own_uid
from worker.isolation.landlock import NEWEST_ABI
from worker.isolation.limits import Limits
from worker.isolation.measure import PeakMemory
from worker.isolation.messages import (
    LAST_STAGE,
    REQUEST_FILE,
    Progress,
    ProtocolError,
    Request,
    read_progress,
    read_seconds,
)
from worker.isolation.process import CHILD, Process, started
from worker.isolation.quiet import MEASURING_LOCK, MeasuringLock, Quiet
from worker.isolation.recheck import Recheck, refused
from worker.isolation.results import read_result
from worker.isolation.seal import Seal
from worker.isolation.supervise import Stop, Supervised
from worker.isolation.watch import at_a_limit

#: Values of the user's own metric of a model file.
Score = Callable[[Path], Sequence[float]]
#: The causes that a child can name itself, by the code in its result.
NAMED = {
    cause.value: cause
    for cause in (Cause.OUT_OF_MEMORY, Cause.DISK_LIMIT, Cause.TIME_LIMIT, Cause.PROCESS_LIMIT)
}


def run_child(
    request: Request,
    folder: Path,
    *,
    limits: Limits,
    on_message: Callable[[Progress], None],
    stop: Stop,
    sandbox: str = "auto",
    slot: int | None = None,
    measuring_lock: Path | None = None,
    score: Score | None = None,
    program: str = CHILD,
    landlock_abi: int = NEWEST_ABI,
) -> Ended:
    """Run one job in a child of its own and say how it ended; the child is gone afterwards.

    The folder is the job's alone: request.json is written into it, the results are in it.
    `stop` is asked twice a second; a reason that it gives ends the child. An exception of a
    callback ends the child and is passed on. `score` is the user's own metric: code that they
    trust, and so it runs out here.
    """
    wanted = _prepared(
        request, folder, limits=limits, sandbox=sandbox, slot=slot, landlock_abi=landlock_abi
    )
    lock = MeasuringLock(measuring_lock or MEASURING_LOCK)
    with started(program, folder) as process:
        job = _Job(process, wanted, folder, request=request, on_message=on_message,
                   stop=stop, lock=lock, score=score)  # fmt: skip
        return job.run()


def _prepared(
    request: Request,
    folder: Path,
    *,
    limits: Limits,
    sandbox: str,
    slot: int | None,
    landlock_abi: int,
) -> Seal:
    """Put the request into the folder, and give the folder to whom the child will be."""
    (folder / REQUEST_FILE).write_text(request.to_json())
    uid = own_uid(slot, sandbox)
    give(folder, uid)
    return Seal(
        parent=os.getpid(),
        limits=limits,
        sandbox=sandbox,
        input_bytes=_input_bytes(request, folder),
        uid=uid,
        writable=True,
        readable=tuple(path for path in request.paths() if Path(path).is_absolute()),
        landlock_abi=landlock_abi,
    )


class _Job:
    """The supervisor's side of the conversation with one child."""

    def __init__(
        self,
        process: Process,
        wanted: Seal,
        folder: Path,
        *,
        request: Request,
        on_message: Callable[[Progress], None],
        stop: Stop,
        lock: MeasuringLock,
        score: Score | None,
    ) -> None:
        self.stage: str | None = None
        self._publishes = request.kind == "compress"
        self._on_message, self._score, self._folder = on_message, score, folder
        self.child = Supervised(
            process, wanted, folder, hear=self._hear, stop=stop, tick=self._step
        )
        self._quiet = Quiet(
            lock, self.child.clock, lambda had: self.child.answer({"quiet": had})
        )
        self._quiet.processes.append(process)
        self._peak = PeakMemory(wanted, folder, stop=self._ended, quiet=self._quiet)
        self._recheck = Recheck(request, self.child, folder, stop=stop, quiet=self._quiet)

    def run(self) -> Ended:
        with self._recheck:
            try:
                self.child.run()
            finally:
                self._quiet.end()
            ended = _conclude(self.child, self._folder, stage=self.stage)
            if ended.cause is not Cause.DONE or not self._publishes or ended.result is None:
                return ended
            return self._checked(ended, ended.result)

    def _checked(self, ended: Ended, result: Mapping[str, Any]) -> Ended:
        """The same end where a second child finds the result to be one; else why not."""
        cause, error = self._recheck.verdict(result)
        if cause is Cause.DONE:
            return ended
        limits = self.child.wanted.limits
        return replace(
            ended,
            cause=cause,
            result=None,
            error=error or explain(cause, stage=self.stage, limits=limits, number=None),
            stopped_because=self._recheck.stopped_because,
            stderr=ended.stderr + self._recheck.output,
        )

    def _step(self) -> None:
        self._quiet.step()

    def _ended(self) -> str | None:
        """Why a measurement has to end: its job has."""
        self.child.look()
        return self.child.verdict

    def _hear(self, message: Mapping[str, Any]) -> None:
        if "progress" in message:
            progress = read_progress(message["progress"])
            self.stage = progress.stage
            self._on_message(progress)
            if self._publishes and self.stage == LAST_STAGE:
                self._recheck.prepare()
        elif message.get("quiet") == "enter":
            self._quiet.enter(read_seconds(message.get("seconds")))
        elif message.get("quiet") == "leave":
            self._quiet.leave()
        elif "measure" in message:
            self.child.answer({"peak_memory_bytes": self._peak.of(message)})
        elif "score" in message and self._score is not None:
            model = self._folder / self._peak.allowed(message["score"])
            self.child.answer({"scores": list(self._score(model))})
        else:
            raise ProtocolError("a message that nobody sends")


def _input_bytes(request: Request, folder: Path) -> int:
    found = [folder / path for path in request.paths()]
    return sum(path.stat().st_size for path in found if path.exists())


def _conclude(child: Supervised, folder: Path, *, stage: str | None) -> Ended:
    exited, limits = child.process.ended, child.wanted.limits
    output = child.output.decode(errors="replace")
    cause, result, error = _outcome(child, folder, limits)
    number = exited.signal if exited else None
    if error is None and cause is not Cause.DONE:
        error = explain(cause, stage=stage, limits=limits, number=number)
    return Ended(
        cause=cause,
        result=result,
        error=error,
        stopped_because=child.stopped_because,
        signal=number,
        stage=stage,
        stderr=output,
        seconds=child.clock.seconds(),
        cpu_seconds=exited.cpu_seconds if exited else 0.0,
        peak_memory_bytes=child.peak_memory_bytes,
        layers=child.layers,
    )


def _outcome(
    child: Supervised, folder: Path, limits: Limits
) -> tuple[Cause, dict[str, Any] | None, dict[str, Any] | None]:
    """Cause, result and the child's own error, where it left one."""
    exited, output = child.process.ended, child.output.decode(errors="replace")
    if child.verdict is not None or exited is None:
        return child.verdict or Cause.KILLED, None, None
    if exited.signal is not None:
        cause = cause_of_signal(
            exited.signal,
            cpu_seconds=exited.cpu_seconds,
            limits=limits,
            at_limit=child.limit_in(output),
        )
        return cause, None, None
    if exited.code == EXIT_UNSEALED:
        return Cause.FAILED, None, unsealed(child.layers)
    result = read_result(folder) if exited.code == 0 else None
    if result is not None and result["ok"]:
        return Cause.DONE, result, None
    error = None if result is None else dict(result["error"])
    named = error is not None and error["code"] != "internal_error"
    if error is not None and error["code"] in NAMED:
        return NAMED[error["code"]], result, None
    # Libraries fail in odd ways where an allocation or a write was refused.
    limit = None if named else child.limit_in(output)
    limit = limit or at_a_limit(folder, limits)
    if limit is not None:
        return limit, result, None
    if exited.code == 0 and error is None:
        error = refused("it left no report that can be read")
    return Cause.FAILED, result, error


def unsealed(layers: Mapping[str, str]) -> dict[str, Any]:
    """The problem of a host that lacks a layer although the setting demands it."""
    lacking = "; ".join(
        f"{name}: {state}" for name, state in layers.items() if state[:2] != "ok"
    )
    return problem(
        f"this machine cannot seal a job as sandbox=required demands ({lacking})",
        code="sandbox_unavailable",
        hint="run the worker on Linux with Landlock and seccomp, or set sandbox=auto",
    )
