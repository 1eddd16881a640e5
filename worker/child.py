"""The process that touches an upload: it seals itself, then reads, converts and compresses.

It is started by `worker.isolation.run_child` with a folder and two pipes, reads request.json in
that folder and leaves result.json there. What it prints goes to the operator's log.
"""

import errno
import json
import sys
import traceback
import uuid
from pathlib import Path
from typing import Any

from worker.isolation import Channel, Request, enter

#: The share of the whole that reading and converting the upload takes.
INGEST_SHARE = 0.05
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
RESULT_FILE = "result.json"


def main() -> int:
    """Run one job; 0 means that result.json is there, whatever it says."""
    channel = enter(sys.argv[1:])
    request = channel.request()
    job = Job(request, channel)
    try:
        result = job.run()
    except Exception as error:  # whatever a stranger's model can raise
        result = {"ok": False, "error": problem(error, stage=job.stage)}
    write_result(channel.folder, result)
    return 0


class Job:
    """One request, carried out; `stage` is where it stands."""

    def __init__(self, request: Request, channel: Channel) -> None:
        self.stage = "convert"
        self._request = request
        self._channel = channel
        self._folder = channel.folder

    def run(self) -> dict[str, Any]:
        self._progress("convert", 0.0, "reading the upload")
        # After the seal, and not before: these imports load onnxruntime.
        from worker.compression import compress, inspect  # noqa: PLC0415 - after the seal
        from worker.ingest import ingest  # noqa: PLC0415 - after the seal

        request, out = self._request, self._folder / self._request.out
        upload = self._folder / request.model
        work = self._folder / "ingest"
        for folder in (out, work):
            folder.mkdir(exist_ok=True)
        taken = ingest(
            upload,
            work / "model.onnx",
            workdir=work,
            inputs=request.inputs,
            samples_path=self._path(request.calibration or request.evaluation),
            progress=self._ingesting,
        )
        if request.kind == "inspect":
            inspection = inspect(taken.path, name=request.name, format=taken.format)
            return {"ok": True, "inspection": inspection.model_dump(mode="json")}
        report = compress(
            taken.path,
            request.recipe,
            out=out,
            name=request.name,
            format=taken.format,
            upload=upload,
            calibration=self._path(request.calibration),
            evaluation=self._path(request.evaluation),
            inputs=request.inputs,
            progress=self._compressing,
            measure=self._channel.measure,
            quiet=self._channel.quiet,
        )
        content = report.model_dump(mode="json", by_alias=True)
        return {"ok": True, "report": content, "files": self._files(out)}

    def _path(self, given: str | None) -> Path | None:
        return None if given is None else self._folder / given

    def _files(self, out: Path) -> list[str]:
        return sorted(
            path.relative_to(self._folder).as_posix()
            for path in out.iterdir()
            if path.is_file()
        )

    def _progress(self, stage: str, share: float, message: str) -> None:
        self.stage = stage
        self._channel.progress(stage, share, message)

    def _ingesting(self, share: float, message: str) -> None:
        self._progress("convert", INGEST_SHARE * share, message)

    def _compressing(self, stage: str, share: float, message: str) -> None:
        self._progress(stage, INGEST_SHARE + (1 - INGEST_SHARE) * share, message)


def problem(error: Exception, *, stage: str) -> dict[str, Any]:
    """What the user is told about an exception; the traceback goes to the log only."""
    from worker.compression import CompressionError  # noqa: PLC0415 - after the seal

    if isinstance(error, CompressionError):
        return _problem(error.code, error.message, error.hint, stage, errors=error.errors)
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return _problem(
            "out_of_memory",
            f"the job needed more memory than it may use while it was at the stage {stage}",
            "send fewer or smaller calibration samples, or allow jobs more memory",
            stage,
        )
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return _problem(
            "disk_limit",
            f"the job needed more disk than it may use while it was at the stage {stage}",
            "send fewer calibration samples, or allow jobs more disk",
            stage,
        )
    number = uuid.uuid4().hex[:8]
    sys.stderr.write(f"internal error {number} at the stage {stage}\n")
    traceback.print_exception(error)
    return _problem(
        "internal_error",
        f"something went wrong on our side at the stage {stage} (error {number})",
        "report it with this number: the log has the details",
        stage,
    )


def _problem(
    code: str,
    message: str,
    hint: str | None,
    stage: str,
    *,
    errors: Any = (),  # noqa: ANN401
) -> dict[str, Any]:
    return {
        "code": code,
        "message": message,
        "hint": hint,
        "stage": stage,
        "errors": list(errors),
    }


def measure() -> int:
    """Tell the peak memory of this process: with a model run once, or of onnxruntime alone.

    Only what running needs is imported, since its memory would count as well.
    """
    channel = enter(sys.argv[1:4])
    import numpy as np  # noqa: PLC0415 - after the seal
    import onnxruntime as ort  # noqa: PLC0415 - after the seal

    for model in sys.argv[4:5]:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        given = dict(np.load(sys.argv[5])) if len(sys.argv) > 5 else _zeros(session)
        session.run(None, given)
    status = Path("/proc/self/status").read_text()
    peak = status.partition("VmHWM:")[2].split()[0]
    channel.tell(peak_memory_bytes=1024 * int(peak))
    return 0


def _zeros(session: Any) -> dict[str, Any]:  # noqa: ANN401 - onnxruntime has no types
    """The smallest feed that the model's own interface allows."""
    import numpy as np  # noqa: PLC0415 - after the seal

    types = {"float": "float32", "double": "float64", "float16": "float16", "bool": "bool"}
    feed = {}
    for port in session.get_inputs():
        word = port.type.removeprefix("tensor(").removesuffix(")")
        shape = [size if isinstance(size, int) else 1 for size in port.shape]
        feed[port.name] = np.zeros(shape, types.get(word, word))
    return feed


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Leave result.json, whole or not at all."""
    unfinished = folder / f"{RESULT_FILE}.part"
    unfinished.write_text(json.dumps(result, allow_nan=False))
    unfinished.replace(folder / RESULT_FILE)


if __name__ == "__main__":
    sys.exit(main())
