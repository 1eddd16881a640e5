"""The process that touches an upload: it seals itself, then reads, converts and compresses.

It is started by `worker.isolation.run_child` with a folder and two pipes, reads request.json in
that folder and leaves result.json there. What it prints goes to the operator's log. Nothing
that could load a model is imported before the seal.
"""

import json
import sys
import time
import traceback
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worker.isolation import Cause, Channel, Request, enter, file_was_cut, limit_of, problem

#: The share of the whole that reading and converting the upload takes.
INGEST_SHARE = 0.05
RESULT_FILE = "result.json"
#: Importing the library is a part of the job's time budget as well.
BEGUN = time.monotonic()


def main() -> int:
    """Run one job; 0 means that result.json is there, whatever it says."""
    channel = enter(sys.argv[1:4])
    job = Job(channel.request(), channel)
    try:
        content = _encoded(job.run())
    except Exception as error:  # whatever a stranger's model can raise
        content = _encoded({"ok": False, "error": explained(error, job)})
    unfinished = channel.folder / f"{RESULT_FILE}.part"
    unfinished.write_text(content)
    unfinished.replace(channel.folder / RESULT_FILE)
    return 0


def _encoded(result: dict[str, Any]) -> str:
    return json.dumps(result, allow_nan=False)


class Job:
    """One request, carried out; `stage` is where it stands."""

    def __init__(self, request: Request, channel: Channel) -> None:
        self.stage = "convert"
        self._request = request
        self._channel = channel
        self._folder = channel.folder

    def in_the_users_words(self, message: str) -> str:
        """A message without our folder, and without the names under which we keep files."""
        request, message = self._request, message.replace(f"{self._folder}/", "")
        known = {
            request.model: request.name or "the model",
            request.calibration: "the calibration data",
            request.evaluation: "the evaluation data",
            request.partner: "the partner",
        }
        for path, name in known.items():
            message = message.replace(Path(path).name, name) if path else message
        return message

    def run(self) -> dict[str, Any]:
        self._progress("convert", 0.0, "reading the upload")
        from worker.compression import Recipe  # noqa: PLC0415 - after the seal
        from worker.ingest import ingest  # noqa: PLC0415 - after the seal

        request = self._request
        if request.kind == "compress":
            recipe = Recipe.parse(
                request.recipe
            )  # a conversion takes minutes: refuse before it
            if recipe.passes == "auto":
                self._channel.deadline = BEGUN + recipe.goal.time_budget_s
        work = self._folder / "ingest"
        work.mkdir()
        taken = ingest(
            self._folder / request.model,
            work / "model.onnx",
            workdir=work,
            inputs=request.inputs,
            samples_path=self._path(request.calibration or request.evaluation),
            progress=self._ingesting,
        )
        return self._inspect(taken) if request.kind == "inspect" else self._compress(taken)

    def _inspect(self, taken: Any) -> dict[str, Any]:  # noqa: ANN401 - imported after the seal
        from worker.compression import inspect  # noqa: PLC0415 - after the seal

        found = inspect(taken.path).model_dump(mode="json")
        found["notes"] += taken.notes
        found |= {"format": taken.format, "conversion": taken.facts or None}
        self._progress("report", 1.0, "done")
        return {"ok": True, "inspection": found}

    def _compress(self, taken: Any) -> dict[str, Any]:  # noqa: ANN401 - imported after the seal
        from worker.compression import OwnMetric, compress  # noqa: PLC0415 - after the seal

        request, out = self._request, self._folder / self._request.out
        report = compress(
            taken.path,
            request.recipe,
            out=out,
            name=request.name,
            format=taken.format,
            upload=self._folder / request.model,
            notes=taken.notes,
            calibration=self._path(request.calibration),
            evaluation=self._path(request.evaluation),
            inputs=request.inputs,
            cache=self._path(request.cache),
            partner=self._path(request.partner),
            metric=OwnMetric(request.metric, self._channel.score) if request.metric else None,
            begun=BEGUN,
            progress=self._compressing,
            measure=self._measure,
            quiet=self._channel.quiet,
        )
        made = sorted(path.name for path in out.iterdir() if path.is_file())
        return {
            "ok": True,
            "report": report.model_dump(mode="json", by_alias=True),
            "files": [f"{request.out}/{name}" for name in made],
        }

    def _measure(self, model: Path, feed: Mapping[str, Any]) -> int | None:
        import numpy as np  # noqa: PLC0415 - after the seal

        written = self._folder / "feed.npz"  # the check of the result uses it as well
        # Behind a character: an input may be called `file`, as numpy's own parameter is.
        # Texts as such: objects would be pickled, and no reader of ours opens a pickle.
        plain = {name: v.astype(str) if v.dtype == object else v for name, v in feed.items()}
        np.savez(written, **{f"={name}": value for name, value in plain.items()})
        return self._channel.measure(model, written)

    def _path(self, given: str | None) -> Path | None:
        return None if given is None else self._folder / given

    def _progress(self, stage: str, share: float, message: str) -> None:
        self.stage = stage
        self._channel.progress(stage, share, message)

    def _ingesting(self, share: float, message: str) -> None:
        self._progress("convert", INGEST_SHARE * share, message)

    def _compressing(self, stage: str, share: float, message: str) -> None:
        self._progress(stage, INGEST_SHARE + (1 - INGEST_SHARE) * share, message)


def explained(error: Exception, job: Job) -> dict[str, Any]:
    """What the user is told about an exception; the traceback goes to the log only."""
    stage = job.stage
    # Before the library's own errors: it may have wrapped what a refused allocation or write
    # brought about. The supervisor knows how much it was, and finds the words.
    limits = [limit for limit in map(limit_of, _causes(error)) if limit is not None]
    if limits or file_was_cut():
        code = limits[0] if limits else Cause.DISK_LIMIT
        return problem(f"at the stage {stage}", code=code, hint=None, stage=stage)
    from worker.compression import CompressionError  # noqa: PLC0415 - after the seal

    if error.__cause__ is not None or not isinstance(error, CompressionError):
        traceback.print_exception(error)
    if isinstance(error, CompressionError):
        message = job.in_the_users_words(error.message)
        return problem(
            message, code=error.code, hint=error.hint, stage=stage, errors=error.errors
        )
    number = uuid.uuid4().hex[:8]
    sys.stderr.write(f"internal error {number} at the stage {stage}\n")
    return problem(
        f"something went wrong on our side at the stage {stage} (error {number})",
        code="internal_error",
        hint="report it with this number: the log has the details",
        stage=stage,
    )


def _causes(error: BaseException) -> list[BaseException]:
    """The exception, and what it was raised from or came up under."""
    found = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) and cause not in found:
        found.append(cause)
    return found
