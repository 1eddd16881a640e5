"""Models with a state: an output of one sample is an input of the next (DESIGN.md 3.3)."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, overload

import numpy as np

from worker.compression import graph
from worker.compression.calibration.columns import fits
from worker.compression.calibration.samples import CalibrationSet, Feed, Picked
from worker.compression.calibration.storage import ArrayFile, StoredArray
from worker.compression.errors import InvalidData, InvalidRecipe, first_line
from worker.compression.graph import InputSpec

_KEYS = {"from_output", "initial", "shape", "dtype"}


@dataclass(frozen=True)
class State:
    """An input that takes over an output, and what a sequence begins with: zeros."""

    input: InputSpec
    output: str
    shape: tuple[int, ...] | None


def states(
    given: Mapping[str, Mapping[str, Any]],
    inputs: Sequence[InputSpec],
    outputs: Sequence[InputSpec],
) -> list[State]:
    """The states that an `inputs` object tells of: `{"h": {"from_output": "hN"}}`.

    Raises:
        InvalidRecipe: `invalid_inputs`; the message names what is wrong.
    """
    found = []
    taken = {spec.name: spec for spec in inputs}
    made = {spec.name: spec for spec in outputs}
    for name, entry in given.items():
        if "from_output" not in entry:
            if "initial" in entry:
                _refuse(f"{name}: initial is for a state, which has from_output")
            continue
        if name not in taken:
            _refuse(f"{name!r} is no input of the model; its inputs are {_names(taken)}")
        output = made.get(str(entry["from_output"]))
        if output is None:
            _refuse(
                f"{name}.from_output: there is no output {entry['from_output']!r}; the outputs "
                f"are {_names(made)}"
            )
        found.append(_state(taken[name], output, entry))
    _no_twice(found)
    return found


def _state(taken: InputSpec, output: InputSpec, entry: Mapping[str, Any]) -> State:
    name = taken.name
    if unknown := sorted(set(entry) - _KEYS):
        _refuse(f"{name}: a state has no {', '.join(unknown)}")
    if entry.get("initial", "zeros") != "zeros":
        _refuse(f"{name}.initial: a sequence can begin with 'zeros' only")
    if taken.dtype != output.dtype:
        _refuse(
            f"{name}: the input is {taken.dtype}, but output {output.name!r} is {output.dtype}"
        )
    both = zip(taken.shape, output.shape, strict=False)
    clash = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in both)
    ranks = taken.ranked and output.ranked and len(taken.shape) != len(output.shape)
    if clash or ranks:
        _refuse(
            f"{name}: the input has shape {list(taken.shape)}, but output {output.name!r} has "
            f"{list(output.shape)}"
        )
    shape = entry.get("shape")
    if shape is not None and not (taken.ranked and fits(shape, taken)):
        _refuse(f"{name}.shape: {shape} does not fit the input's {list(taken.shape)}")
    return State(taken, output.name, None if shape is None else tuple(shape))


def carried(
    path: Path, samples: CalibrationSet, held: Sequence[State], *, workdir: Path
) -> CalibrationSet:
    """The samples as whole feeds, with the states that the model comes to on the way.

    The samples lack these inputs. Each sequence begins with zeros.

    Raises:
        InvalidData: the model refuses a sample, or a state comes out in another shape.
    """
    running = graph.session(path)
    outputs = [state.output for state in held]
    handle, name = tempfile.mkstemp(prefix="states-", suffix=".bin", dir=workdir)
    os.close(handle)
    kept: list[dict[str, StoredArray]] = []
    values: Feed = {}
    with ArrayFile(Path(name)) as file:
        for index, feed in enumerate(samples):
            if index == 0 or index in samples.starts:
                values = {state.input.name: _zeros(state, feed) for state in held}
            kept.append({key: file.append(value) for key, value in values.items()})
            try:
                made = running.run(outputs, feed | values)
            except Exception as error:
                shapes = {key: value.shape for key, value in (feed | values).items()}
                raise InvalidData(
                    f"the model fails on sample {index}: {first_line(error)}",
                    hint=f"check the shapes of the data and of the state: {shapes}",
                    code="model_does_not_run",
                ) from error
            values = _next(held, made, values, index)
    links = {state.input.name: state.output for state in held}
    return replace(samples, feeds=_WithStates(samples.feeds, kept), carried=links)


def _zeros(state: State, feed: Feed) -> np.ndarray:
    """What a sequence begins with; free axes are as long as the batch of the other inputs."""
    if state.shape is not None:
        return np.zeros(state.shape, state.input.dtype)
    batch = next((value.shape[0] for value in feed.values() if value.ndim > 1), 1)
    shape = [axis if isinstance(axis, int) else batch for axis in state.input.shape]
    return np.zeros(shape, state.input.dtype)


def _next(
    held: Sequence[State], made: Sequence[np.ndarray], before: Feed, index: int
) -> dict[str, np.ndarray]:
    values = {}
    for state, value in zip(held, made, strict=True):
        name = state.input.name
        if value.shape != before[name].shape:
            raise InvalidData(
                f"on sample {index} the state {name!r} goes in as {list(before[name].shape)} "
                f"and output {state.output!r} comes out as {list(value.shape)}",
                hint=f'say what it begins with: {{"{name}": {{"from_output": '
                f'"{state.output}", "shape": [...]}}}}',
            )
        values[name] = value
    return values


@dataclass(frozen=True)
class _WithStates(Sequence[Feed]):
    """Feeds with states that were stored."""

    feeds: Sequence[Feed]
    states: Sequence[Mapping[str, StoredArray]]

    def __len__(self) -> int:
        return len(self.feeds)

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> Picked[Feed]: ...
    def __getitem__(self, index: int | slice) -> Feed | Picked[Feed]:
        if isinstance(index, slice):
            return Picked(self, range(len(self))[index])
        stored = {name: one.read() for name, one in self.states[index].items()}
        return self.feeds[index] | stored


def _no_twice(found: Sequence[State]) -> None:
    outputs = [state.output for state in found]
    twice = sorted({name for name in outputs if outputs.count(name) > 1})
    if twice:
        _refuse(f"output {twice[0]!r} is the state of two inputs")


def _names(specs: Mapping[str, InputSpec]) -> str:
    return ", ".join(map(repr, specs))


def _refuse(message: str) -> NoReturn:
    raise InvalidRecipe(
        f"inputs: {message}",
        hint='a state is told like {"h": {"from_output": "hN", "initial": "zeros"}}',
        code="invalid_inputs",
    )
