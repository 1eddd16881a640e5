"""One job in a child of its own: from the request to how it ended."""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker.isolation.ended import EXIT_UNSEALED, Cause, Ended, cause_of_signal, explain
from worker.isolation.landlock import NEWEST_ABI
from worker.isolation.limits import Limits
from worker.isolation.messages import REQUEST_FILE, Progress, Request, read_progress
from worker.isolation.privileges import FIRST_UID, SLOTS
from worker.isolation.process import CHILD, started
from worker.isolation.results import read_result
from worker.isolation.seal import Seal
from worker.isolation.supervise import Stop, Supervised

#: The causes that a child can name itself, by the code in its result.
NAMED = {
    cause.value: cause for cause in (Cause.OUT_OF_MEMORY, Cause.DISK_LIMIT, Cause.TIME_LIMIT)
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
    program: str = CHILD,
    landlock_abi: int = NEWEST_ABI,
) -> Ended:
    """Run one job in a child of its own and say how it ended; the child is gone afterwards.

    The folder is the job's alone: request.json is written into it, the results are in it. `stop`
    is asked twice a second; a reason that it gives ends the child. An exception of a callback
    ends the child and is passed on.
    """
    (folder / REQUEST_FILE).write_text(request.to_json())
    uid = own_uid(slot, sandbox)
    give(folder, uid)
    wanted = Seal(
        parent=os.getpid(),
        limits=limits,
        sandbox=sandbox,
        input_bytes=_input_bytes(request, folder),
        uid=uid,
        writable=True,
        readable=tuple(path for path in request.paths() if Path(path).is_absolute()),
        landlock_abi=landlock_abi,
    )
    with started(program, folder) as process:
        job = _Job(on_message)
        child = Supervised(process, wanted, folder, hear=job.hear, stop=stop)
        job.child = child
        child.run()
    return _conclude(child, folder, limits=limits, stage=job.stage)


class _Job:
    """The supervisor's side of the conversation."""

    child: Supervised

    def __init__(self, on_message: Callable[[Progress], None]) -> None:
        self._on_message = on_message
        self.stage: str | None = None

    def hear(self, message: Mapping[str, Any]) -> None:
        if "progress" in message:
            progress = read_progress(message["progress"])
            self.stage = progress.stage
            self._on_message(progress)
        elif "quiet" in message:
            self.child.answer({"quiet": False})
        elif "measure" in message:
            self.child.answer({"peak_memory_bytes": None})


def own_uid(slot: int | None, sandbox: str) -> int | None:
    """The user that a child becomes, where we may say so; None where it stays ours."""
    if sandbox == "off" or os.geteuid() != 0:
        return None
    return FIRST_UID + (os.getpid() if slot is None else slot) % SLOTS


def give(folder: Path, uid: int | None) -> None:
    """Make the folder and what is in it the child's, and nobody else's."""
    folder.chmod(0o700)
    if uid is None:
        return
    with contextlib.suppress(PermissionError):  # a root that may not change owners nor its user
        for _, folders, files, descriptor in os.fwalk(folder):
            for name in (*folders, *files):
                # A file with a second name belongs to somebody else as well.
                if os.lstat(name, dir_fd=descriptor).st_nlink == 1 or name in folders:
                    os.chown(name, uid, uid, dir_fd=descriptor, follow_symlinks=False)
        os.chown(folder, uid, uid)


def _input_bytes(request: Request, folder: Path) -> int:
    found = [folder / path for path in request.paths()]
    return sum(path.stat().st_size for path in found if path.exists())


def _conclude(child: Supervised, folder: Path, *, limits: Limits, stage: str | None) -> Ended:
    exited = child.process.ended
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
        peak_memory_bytes=exited.peak_memory_bytes if exited else 0,
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
            peak_bytes=exited.peak_memory_bytes,
            limits=limits,
            output=output,
        )
        return cause, None, None
    if exited.code == EXIT_UNSEALED:
        return Cause.FAILED, None, unsealed(child.layers)
    result = read_result(folder) if exited.code == 0 else None
    if result is None:
        return Cause.FAILED, None, None
    if result["ok"]:
        return Cause.DONE, result, None
    error = dict(result["error"])
    return NAMED.get(error["code"], Cause.FAILED), result, error


def unsealed(layers: Mapping[str, str]) -> dict[str, Any]:
    """The problem of a host that lacks a layer although the setting demands it."""
    lacking = "; ".join(
        f"{name}: {state}" for name, state in layers.items() if state[:2] != "ok"
    )
    return {
        "code": "sandbox_unavailable",
        "message": f"this machine cannot hold a model as sandbox=required demands ({lacking})",
        "hint": "run the worker on a Linux kernel with Landlock and seccomp, or set sandbox=auto",
        "stage": None,
        "errors": [],
    }
