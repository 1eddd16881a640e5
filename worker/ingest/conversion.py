"""Export a module with as many free axes as agree with TorchScript, and prove that they do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import InvalidModel, graph
from worker.ingest import exporter, weight_names
from worker.ingest.agreement import Converted, Deviation, deviation, error
from worker.ingest.examples import BatchAxes, Examples, stacked
from worker.ingest.module import ForwardFailed, Module, load, wrap
from worker.ingest.reasons import runtime_reason
from worker.ingest.samples import Feed
from worker.ingest.signature import Plan

Progress = Callable[[float, str], None]
Axes = dict[str, dict[int, str]]

BATCH = "batch"
# Their outputs may have another size with other values of the same shape.
_SIZED_BY_DATA = {"NonZero", "NonMaxSuppression", "Unique", "Compress"}


@dataclass(frozen=True)
class Conversion:
    """What was made: which axes are free, how far it is from the module, and what to know."""

    axes: Axes
    opset: int
    largest_difference: float
    checked_on: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """A module that can be opened afresh: the exporter changes what it exports."""

    path: Path
    planned: Plan
    results: tuple[str, ...]

    def open(self) -> Module:
        return wrap(load(self.path), self.planned, self.results)


@dataclass(frozen=True)
class _Check:
    """A feed with TorchScript's own answer."""

    feed: Feed
    answer: list[np.ndarray]


@dataclass(frozen=True)
class _Choice:
    """Axes to leave free, with the checks that prove them and what the note says of them."""

    axes: Axes
    checks: Sequence[_Check]


def convert(
    source: Source,
    found: Examples,
    state: Mapping[str, np.ndarray],
    *,
    out: Path,
    workdir: Path,
    progress: Progress,
) -> Conversion:
    """Write the first choice of free axes that agrees with TorchScript on all its checks.

    Raises:
        InvalidModel: `conversion_failed`, or `conversion_mismatch` with the numbers.
    """
    refused: InvalidModel | None = None
    choices = _choices(found, source.open())
    for number, choice in enumerate(choices):
        progress(0.35 + 0.55 * number / len(choices), "converting to ONNX")
        try:
            return _attempt(source, choice, state, found=found, out=out, workdir=workdir,
                            refused=refused)  # fmt: skip
        except InvalidModel as error:
            refused = error
    raise refused or InvalidModel("the module cannot be converted to ONNX")


def _choices(found: Examples, module: Module) -> list[_Choice]:
    """From all axes free to none."""
    first, second = found.feeds[:2]
    fixed = [_check(module, feed) for feed in (first, second)]
    others = [_check(module, feed) for feed in found.others]
    batched, stacks = _stacked(found, module)
    batch = {name: {axis: BATCH} for name, axis in batched.items()}
    varying = {name: dict(axes) for name, axes in found.varying.items()}
    both = _joined(varying, batch)
    choices = [
        _Choice(both, [*fixed, *stacks, *others]) if batch and varying else None,
        _Choice(varying, [*fixed, *others]) if varying else None,
        _Choice(batch, [*fixed, *stacks]) if batch else None,
        _Choice({}, fixed),
    ]
    return [choice for choice in choices if choice is not None]


def _stacked(found: Examples, module: Module) -> tuple[BatchAxes, list[_Check]]:
    """Batches of two and three feeds, stacked in the first way that the module takes."""
    first, second = found.feeds[:2]
    for axes in found.batched:
        feeds = [stacked([first, second], axes), stacked([first, second, first], axes)]
        feeds += [stacked([other, other], axes) for other in found.others[-1:]]
        try:
            return axes, [_check(module, feed) for feed in feeds]
        except ForwardFailed:
            continue
    return {}, []


def _check(module: Module, feed: Feed) -> _Check:
    return _Check(feed, [output.copy() for output in module(feed)])


def _joined(first: Axes, second: Axes) -> Axes:
    names = dict.fromkeys([*first, *second])
    return {name: {**first.get(name, {}), **second.get(name, {})} for name in names}


def _attempt(
    source: Source,
    choice: _Choice,
    state: Mapping[str, np.ndarray],
    *,
    found: Examples,
    out: Path,
    workdir: Path,
    refused: InvalidModel | None,
) -> Conversion:
    raw = workdir / "exported.onnx"
    outputs = len(choice.checks[0].answer)
    exporter.export(source.open(), found.feeds[0], raw, outputs=outputs, axes=choice.axes)
    model = graph.load(raw)
    weight_names.restore(model, state)
    _state_shapes(model, choice)
    graph.save(model, out)
    outside, difference = _compare(out, choice.checks)
    if outside is not None:
        raise InvalidModel(
            f"the conversion to ONNX does not agree with TorchScript: {outside}",
            hint="export ONNX from the original model with torch.onnx.export, and send that",
            code="conversion_mismatch",
        )
    notes = _notes(found, choice, refused, difference=difference)
    return Conversion(choice.axes, graph.opset(model), difference, len(choice.checks), notes)


def _compare(path: Path, checks: Sequence[_Check]) -> tuple[Deviation | None, float]:
    """The first check that the file fails, and the largest difference; the first runs twice."""
    converted, largest = _open(path), 0.0
    for check in [*checks, checks[0]]:
        try:
            answer = converted(check.feed)
        except Exception as failure:
            shapes = {name: list(array.shape) for name, array in check.feed.items()}
            raise _not_run(f"it fails on inputs of shapes {shapes}", failure) from failure
        outside = deviation(check.answer, answer)
        if outside is not None:
            return outside, largest
        largest = max(largest, error(check.answer, answer))
    return None, largest


def _open(path: Path) -> Converted:
    try:
        return Converted(path)
    except InvalidModel as failure:
        raise _not_run("it cannot be loaded", failure) from failure


def _not_run(what: str, failure: Exception) -> InvalidModel:
    return InvalidModel(
        f"the converted module does not run in ONNX Runtime: {what}: {runtime_reason(failure)}",
        hint="if it is a float64 or float16 model, call model.float() before saving it; else "
        "export ONNX from the original model with torch.onnx.export",
        code="conversion_failed",
    )


def _state_shapes(model: ir.Model, choice: _Choice) -> None:
    """Write into the outputs what the checks have shown of their shapes."""
    sizes = list(_named_sizes(choice))
    decided = not any(node.op_type in _SIZED_BY_DATA for node in model.graph.all_nodes())
    for index, value in enumerate(model.graph.outputs):
        seen = [check.answer[index].shape for check in choice.checks]
        if len({len(shape) for shape in seen}) > 1:
            continue
        said = value.shape
        axes = [
            _axis(
                axis_sizes,
                sizes,
                known=decided or (said is not None and isinstance(said[axis], int)),
                own=f"output_{index}_axis_{axis}",
            )
            for axis, axis_sizes in enumerate(zip(*seen, strict=True))
        ]
        value.shape = ir.Shape(axes)


def _axis(
    seen: tuple[int, ...], sizes: Sequence[Mapping[str, int]], *, known: bool, own: str
) -> int | str:
    """A size that never changes, the input axis that it equals, or a symbol of its own."""
    if known and len(set(seen)) == 1:
        return seen[0]
    for symbol in sizes[0]:
        if all(at[symbol] == size for at, size in zip(sizes, seen, strict=True)):
            return symbol
    return own


def _named_sizes(choice: _Choice) -> Iterator[dict[str, int]]:
    for check in choice.checks:
        yield {
            symbol: check.feed[name].shape[axis]
            for name, named in choice.axes.items()
            for axis, symbol in named.items()
        }


def _notes(
    found: Examples, choice: _Choice, refused: InvalidModel | None, *, difference: float
) -> tuple[str, ...]:
    kind = "real samples" if found.real else "random inputs"
    notes = [
        f"the conversion was checked on {len(choice.checks)} {kind}: it differs from "
        f"TorchScript by at most {difference:.1e} of an output's largest magnitude"
    ]
    free = {symbol for named in choice.axes.values() for symbol in named.values()}
    if found.batched and BATCH not in free:
        notes.append(f"the batch size is fixed at {found.batch}{_because(refused)}")
    if found.varying and not free - {BATCH}:
        notes.append(f"the input shapes are fixed at the first sample's{_because(refused)}")
    return tuple(notes)


def _because(refused: InvalidModel | None) -> str:
    if refused is None:
        return ": the module itself takes no other"
    return f", because with a free axis {refused.message}"
