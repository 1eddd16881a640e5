"""The one verb: an uploaded file in, an ONNX file that runs out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.ingest import onnx, torchscript
from worker.ingest.conversion import Conversion
from worker.ingest.sniff import Format, recognise

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Ingested:
    """The ONNX file (an ONNX upload stays where it is), and what the report should say of it.

    `facts` is plain JSON: for TorchScript `free_axes`, `opset`, `largest_difference` (relative
    to an output's largest magnitude) and `checked_on` (number of feeds).
    """

    path: Path
    format: Format
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


def ingest(
    path: Path,
    out: Path,
    *,
    workdir: Path,
    inputs: Mapping[str, Any] | None = None,
    samples_path: Path | None = None,
    progress: Progress = lambda share, message: None,
) -> Ingested:
    """Make an ONNX file of an upload: `out` where something is converted.

    `inputs` and `samples_path` tell TorchScript's input shapes (DESIGN.md 3.3). Writes in
    `workdir` and `out` only; untrusted files belong in the sandboxed child all the same.

    Raises:
        CompressionError: refused by name, damaged, not convertible; with a code and a remedy.
    """
    progress(0.0, "recognising the upload")
    match recognise(path):
        case "onnx":
            progress(0.2, "checking the ONNX model")
            onnx.check(path, alone=True)
            return Ingested(path, "onnx")
        case "onnx_zip":
            return _unpacked(path, workdir, progress)
        case "torchscript":
            made = torchscript.convert(
                path,
                out,
                workdir=workdir,
                inputs=inputs,
                samples_path=samples_path,
                progress=progress,
            )
            return Ingested(out, "torchscript", made.notes, _facts(made))


def _unpacked(path: Path, workdir: Path, progress: Progress) -> Ingested:
    progress(0.1, "unpacking the ONNX model")
    model = onnx.unpack(path, workdir / "unpacked")
    if recognise(model) != "onnx":
        raise onnx.not_a_model(model)
    progress(0.5, "checking the ONNX model")
    onnx.check(model, alone=False)
    return Ingested(model, "onnx_zip")


def _facts(made: Conversion) -> dict[str, Any]:
    axes = {
        name: {str(axis): symbol for axis, symbol in named.items()}
        for name, named in made.axes.items()
    }
    return {
        "free_axes": axes,
        "opset": made.opset,
        "largest_difference": made.largest_difference,
        "checked_on": made.checked_on,
    }
