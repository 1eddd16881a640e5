"""TorchScript to ONNX: shapes from data or `inputs`, and what a module must not do."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from worker.compression import InvalidModel
from worker.ingest import archive, behaviour, conversion, examples, signature, weight_names
from worker.ingest.conversion import Conversion, Source
from worker.ingest.examples import Examples
from worker.ingest.guessing import guess
from worker.ingest.module import load, output_expressions, run_raw
from worker.ingest.samples import Feed, Samples, open_samples
from worker.ingest.signature import Given, Plan

Progress = Callable[[float, str], None]


def convert(
    path: Path,
    out: Path,
    *,
    workdir: Path,
    inputs: Mapping[str, Any] | None,
    samples_path: Path | None,
    progress: Progress,
) -> Conversion:
    """Write `out`: its inputs are named as forward's arguments, its outputs `output_0`, ...

    Raises:
        InvalidModel, StatefulModule, MissingInputs, InvalidData, InvalidRecipe: what stands in
            the way, and what to do about it.
    """
    progress(0.0, "opening the TorchScript module")
    archive.verify(path)
    module = load(path)
    planned, samples = _plan(path, module, inputs, samples_path)
    source, found = _first_call(path, module, planned, samples)
    state = weight_names.state_of(module)
    del module
    progress(0.15, "checking that equal calls get equal answers")
    behaviour.check(source.open, found.feeds[0], found.feeds[1])
    progress(0.3, "converting to ONNX")
    made = conversion.convert(source, found, state, out=out, workdir=workdir, progress=progress)
    return replace(made, notes=(*_constant_notes(planned), *_mask_notes(state), *made.notes))


def _plan(
    path: Path,
    module: Any,  # noqa: ANN401 - a ScriptModule
    inputs: Mapping[str, Any] | None,
    samples_path: Path | None,
) -> tuple[Plan, Samples | None]:
    takes = signature.arguments(module)
    names = [argument.name for argument in takes]
    given = signature.parse(inputs, names)
    samples = None
    if samples_path is not None:
        tensors = [argument.name for argument in takes if argument.kind == "tensor"]
        samples = open_samples(samples_path, inputs=tensors)
    if samples is not None:
        given = {**_values_in_data(samples, takes), **given}
    planned = signature.plan(takes, given, None if samples is None else samples.names)
    known = {name: said.shape for name, said in given.items() if said.shape is not None}
    known.update({name: [] for name in (samples.names if samples else ())})
    signature.check_known(planned, known, guess=guess(path, module.state_dict(), takes))
    return planned, samples


def _values_in_data(
    samples: Samples, takes: tuple[signature.Argument, ...]
) -> dict[str, Given]:
    """Arguments that are plain values and stand in the data as one number, such as a rate."""
    found = {}
    for argument in takes:
        if argument.kind == "value" and argument.name in samples.names:
            value = samples.constant(argument.name)
            if value is not None:
                found[argument.name] = Given(value=value)
    return found


def _first_call(
    path: Path,
    module: Any,  # noqa: ANN401 - a ScriptModule
    planned: Plan,
    samples: Samples | None,
) -> tuple[Source, Examples]:
    """Call the module once: which reading of the data fits, and what it returns."""

    def run(feed: Feed) -> Any:  # noqa: ANN401 - whatever forward returns
        return run_raw(module, feed, planned.constants)

    parameter = next((item for item in module.parameters() if item.is_floating_point()), None)
    weights = None if parameter is None else _numpy_type(parameter.dtype)
    found, result = examples.find(planned, samples, run, weights)
    return Source(path, planned, tuple(output_expressions(module, result))), found


def _numpy_type(dtype: Any) -> np.dtype | None:  # noqa: ANN401 - a torch.dtype
    import torch  # noqa: PLC0415 - the web process never loads torch

    if dtype == torch.bfloat16:
        raise InvalidModel(
            "the module's weights are bfloat16, which ONNX Runtime does not run on a CPU",
            hint="call model.float() before tracing or scripting, and save it again",
            code="unsupported_dtype",
        )
    return np.dtype(str(dtype).removeprefix("torch."))


def _constant_notes(planned: Plan) -> list[str]:
    return [f"{name} is fixed at {value!r}" for name, value in planned.constants.items()]


def _mask_notes(state: Mapping[str, np.ndarray]) -> list[str]:
    masks = [array for name, array in state.items() if name.endswith("_mask")]
    if not masks:
        return []
    zeros = sum(int(mask.size - np.count_nonzero(mask)) for mask in masks)
    total = sum(mask.size for mask in masks)
    return [
        f"masks of torch.nn.utils.prune were applied: {zeros:,} of {total:,} weights are zero"
    ]
