"""Cleaning of a model file."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from worker.compression import graph
from worker.compression.cleaning import steps
from worker.compression.cleaning.equivalence import Outputs, difference, run_all
from worker.compression.errors import CompressionError, CompressionWarning, InvalidModel

Step = Callable[[ir.Model], ir.Model]

STEPS: dict[str, Step] = {
    "raise the operator set": steps.opset_raised,
    "lift constants": steps.constants_lifted,
    # Before onnxslim, which folds it too but renames the layer and its weight.
    "fold BatchNorm": steps.batch_norm_folded,
    "remove what does nothing": steps.redundancy_removed,
    "fold the BatchNorm that this uncovered": steps.batch_norm_folded,
    "infer shapes": steps.shapes_inferred,
}


@dataclass(frozen=True)
class Cleaning:
    """The cleaned file, the steps applied, and those left out with the reason."""

    path: Path
    applied: list[str]
    skipped: list[str]


@dataclass(frozen=True)
class _Upload:
    """What a cleaned model must still be."""

    path: Path
    feeds: Sequence[Mapping[str, np.ndarray]]
    outputs: Outputs


def clean(
    path: Path,
    out: Path,
    *,
    feeds: Sequence[Mapping[str, np.ndarray]],
    progress: Callable[[float, str], None] = lambda share, message: None,
) -> Cleaning:
    """Write a model with the same outputs in fewer nodes; only the folder of `out` is touched.

    All steps are tried at once; if the outputs then differ by more than 1e-4, one by one, and
    each that fails is named in a CompressionWarning.

    Raises:
        InvalidModel: the upload itself is malformed or does not run.
    """
    _check(path)
    # Twice in one session: its random numbers begin anew with every session.
    outputs = run_all(path, [*feeds, *feeds])
    upload = _Upload(path, feeds, outputs[: len(feeds)])
    unstable = difference(upload.outputs, outputs[len(feeds) :])
    if unstable is not None:
        reason = f"two runs of the model differ: {unstable}"
        _warn(reason)
        graph.save(graph.load(path), out)
        return Cleaning(out, [], [reason])
    progress(0.1, "cleaning the graph")
    if _attempt(upload, path, out, STEPS) is None:
        return Cleaning(out, list(STEPS), [])
    return _one_by_one(upload, out, progress)


def _one_by_one(upload: _Upload, out: Path, progress: Callable[[float, str], None]) -> Cleaning:
    applied: list[str] = []
    skipped: list[str] = []
    current = upload.path
    for position, (name, step) in enumerate(STEPS.items()):
        progress((position + 1) / (len(STEPS) + 1), name)
        candidate = out.with_name(f"{out.stem}-{position}.onnx")
        reason = _attempt(upload, current, candidate, {name: step})
        if reason is None:
            applied.append(name)
            current = candidate
            continue
        skipped.append(f"{name}: {reason}")
        _warn(f"cleaning left out the step '{name}': {reason}")
    graph.save(graph.load(current), out)
    for leftover in out.parent.glob(f"{out.stem}-*.onnx"):
        graph.remove(leftover)
    return Cleaning(out, applied, skipped)


def _attempt(
    upload: _Upload, source: Path, target: Path, chosen: Mapping[str, Step]
) -> str | None:
    """Apply steps and save; gives the reason where the result is not the same model."""
    try:
        model = graph.load(source)
        for step in chosen.values():
            model = step(model)
        actual = upload.outputs[0] if upload.outputs else ()
        like = graph.load(upload.path)
        model = steps.interface_restored(steps.names_restored(model, like), like, actual)
        graph.save(model, target)
        return _changed_interface(upload.path, target) or difference(
            upload.outputs, run_all(target, upload.feeds)
        )
    except CompressionError as error:
        return error.message
    except steps.Skipped as reason:
        return str(reason)
    except Exception as error:
        # A third-party cleaner may fail in any way; that is a step left out, not a failed job.
        first = (str(error).splitlines() or [""])[0]
        return f"{type(error).__name__}: {first[:200]}"


def _changed_interface(before: Path, after: Path) -> str | None:
    for which in (graph.inputs, graph.outputs):
        left = [(spec.name, spec.dtype, len(spec.shape)) for spec in which(before)]
        right = [(spec.name, spec.dtype, len(spec.shape)) for spec in which(after)]
        if left != right:
            return f"the interface changed from {left} to {right}"
    return None


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        reason = str(error).splitlines()[0]
        raise InvalidModel(f"{path.name} is not a valid ONNX model: {reason}") from error


def _warn(message: str) -> None:
    warnings.warn(CompressionWarning(message, code="cleaning_step_skipped"), stacklevel=4)
