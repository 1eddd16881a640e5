"""Which weight gets how few bits, so that all together stay within a budget of noise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from worker.compression.precision.encoding import Encoding
from worker.compression.precision.parameters import Parameter
from worker.compression.precision.rounding import as_half, as_int4, as_int8, as_int16

Kind = Literal["int4", "int8", "float16", "int16"]
_ENCODERS: dict[str, Callable[[np.ndarray], Encoding | str]] = {
    "int4": as_int4,
    "int8": as_int8,
    "float16": as_half,
    "int16": as_int16,
}
_KINDS = tuple(_ENCODERS)
# Noise power that is left after a step up, as the step sizes predict it.
_LEFT = {"int8": 1 / 200, "float16": 1 / 2000, "int16": 1 / 10, "float32": 0.0}

Encodings = Mapping[Parameter, Encoding]


class Measure(Protocol):
    """Noise over signal (power) at the outputs; `roughly`: on few of the samples."""

    def __call__(self, encodings: Encodings, *, roughly: bool) -> float: ...


@dataclass
class Plan:
    """An encoding for each weight that gets one, and why the others have more bits."""

    encodings: dict[Parameter, Encoding] = field(default_factory=dict)
    reasons: dict[Parameter, str] = field(default_factory=dict)


def plan(
    parameters: Sequence[Parameter],
    first: Kind,
    *,
    progress: Callable[[float, str], None] = lambda share, message: None,
) -> Plan:
    """Give every weight the encoding `first` or, where it cannot have it, the next wider.

    What is no weight but a table to add, such as positions, begins with float16.
    """
    made = Plan()
    for number, parameter in enumerate(parameters):
        progress(number / len(parameters), f"rounding {parameter.name}")
        start = first if parameter.is_weight else "float16"
        _encode(made, parameter, _KINDS[_KINDS.index(start) :])
    return made


def within(
    made: Plan,
    budget: float,
    measure: Measure,
    *,
    progress: Callable[[float, str], None] = lambda share, message: None,
) -> Plan:
    """The plan with more bits for as few weights as bring the outputs inside the budget.

    Weights are measured one by one; those that save the fewest bytes for their noise come
    first. How many of them it takes is found by halving, with all encodings in place.
    """
    if measure(made.encodings, roughly=False) <= budget:
        return made
    noise: dict[Parameter, float] = {}
    for number, (parameter, encoding) in enumerate(made.encodings.items()):
        progress(0.8 * number / len(made.encodings), f"weighing {parameter.name}")
        noise[parameter] = measure({parameter: encoding}, roughly=True)
    steps = _steps(made, noise)
    few, enough = 0, len(steps)
    while enough - few > 1:
        progress(0.9, "finding how many weights need more bits")
        middle = (few + enough) // 2
        inside = measure(_widened(made, steps[:middle], noise).encodings, roughly=False)
        few, enough = (few, middle) if inside <= budget else (middle, enough)
    return _widened(made, steps[:enough], noise)


def _steps(made: Plan, noise: Mapping[Parameter, float]) -> list[Parameter]:
    """Weights in the order in which they get more bits; one stands there for every step up."""
    left = dict(noise)
    kinds = {one: encoding.kind for one, encoding in made.encodings.items()}
    steps: list[Parameter] = []
    while left:
        loudest = max(left, key=lambda one: left[one] / one.tensor.size)
        kind = _above(kinds[loudest])
        kinds[loudest] = kind
        left[loudest] *= _LEFT[kind]
        if kind == "float32":
            del left[loudest]
        steps.append(loudest)
    return steps


def _widened(made: Plan, steps: Sequence[Parameter], noise: Mapping[Parameter, float]) -> Plan:
    wider = Plan(dict(made.encodings), dict(made.reasons))
    for parameter in steps:
        before = wider.encodings.pop(parameter, None)
        if before is None:
            continue
        kind = _above(before.kind)
        _encode(wider, parameter, _KINDS[_KINDS.index(kind) :] if kind in _KINDS else ())
        first = made.encodings[parameter].kind
        alone = -10 * np.log10(max(noise[parameter], 1e-30))
        wider.reasons[parameter] = f"as {first} it alone brings the outputs to {alone:.0f} dB"
    return wider


def _above(kind: str) -> str:
    place = _KINDS.index(kind) + 1
    return _KINDS[place] if place < len(_KINDS) else "float32"


def _encode(made: Plan, parameter: Parameter, kinds: Sequence[str]) -> None:
    """The first of these encodings that the weight fits, and shrinks in."""
    array = parameter.array() if kinds else np.empty(0)
    for kind in kinds:
        found = _ENCODERS[kind](array)
        if isinstance(found, str):
            made.reasons.setdefault(parameter, found)
        elif found.nbytes < parameter.tensor.nbytes:
            made.encodings[parameter] = found
            return
