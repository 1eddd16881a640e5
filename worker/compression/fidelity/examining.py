"""What the original's answers are worth as a yardstick, before anything is held against it."""

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from worker.compression import graph
from worker.compression.calibration import CalibrationSet, Feed
from worker.compression.errors import CompressionWarning
from worker.compression.fidelity.answers import is_softmaxed
from worker.compression.fidelity.measures import OutputKind

# Samples that are looked at; fewer than so many distinct answers' samples tell nothing.
_LOOKED_AT, _FEWEST = 32, 8
# Wider than figures that a model is asked for at once: these are classes, though all alike.
_MOST_VALUES = 64
_RANDOM = (
    *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
    *("Bernoulli", "Multinomial"),
)
_Outputs = Sequence[np.ndarray]


@dataclass(frozen=True)
class Examined:
    """Kinds of outputs, put right by what was seen; `doubt` says why nothing can be judged."""

    kinds: dict[str, OutputKind]
    doubt: str | None = None


@dataclass
class _Seen:
    """One output over the samples."""

    first: np.ndarray
    constant: bool = True
    broken: int = 0
    hopeless: int = 0
    varying: bool = False
    answers: set[int] = field(default_factory=set)
    count: int = 0

    def add(self, value: np.ndarray, *, alike: bool) -> None:
        """Add a sample's; `alike`: its inputs have the shapes of the first sample's."""
        self.count += 1
        self.varying |= alike and value.shape != self.first.shape
        self.constant = self.constant and _same(self.first, value)
        if value.dtype.kind != "f":
            return
        finite = np.isfinite(value)
        self.broken += not finite.all()
        self.hopeless += value.size > 0 and not finite.any()
        if value.ndim and value.size and len(self.answers) < 2:
            self.answers |= {int(one) for one in np.unique(value.argmax(-1))}


def examine(
    path: Path,
    samples: CalibrationSet,
    kinds: Mapping[str, OutputKind],
    *,
    stated: Collection[str],
) -> Examined:
    """Run the original on some of the samples, and warn of outputs that are a poor yardstick.

    These are `not_deterministic`, `output_not_finite`, `constant_output`, `varying_shape` and
    `one_answer`. Where all samples get the same class of an output that only looks as if it
    held classes (a matrix product, no softmax), it is judged as `value`.

    Raises:
        InvalidModel: the model does not load.
    """
    running = graph.session(path)
    names = list(kinds)
    first = _run(running, names, samples[0])
    if first is None:
        return Examined(dict(kinds))
    again = _run(running, names, samples[0])
    noisy = [
        name
        for name, one, other in zip(names, first, again or first, strict=True)
        if not _same(one, other)
    ]
    if noisy:
        _warn_noise(path, noisy)
    seen = {name: _Seen(value) for name, value in zip(names, first, strict=True)}
    shapes = _shapes(samples[0])
    for index in range(min(len(samples), _LOOKED_AT)):
        feed = samples[index]
        for name, value in zip(names, _run(running, names, feed) or (), strict=False):
            seen[name].add(value, alike=_shapes(feed) == shapes)
    found = Examined(_put_right(path, kinds, seen, stated))
    _warn_of(seen, found.kinds)
    return replace(found, doubt=_doubt(seen, found.kinds, noisy, len(samples)))


def _run(running: ort.InferenceSession, names: list[str], feed: Feed) -> _Outputs | None:
    try:
        made: _Outputs = running.run(names, feed)
    except MemoryError:
        raise
    except Exception:  # a sample that the model refuses: whoever needs it will say so
        return None
    return made if all(isinstance(one, np.ndarray) for one in made) else None


def _shapes(feed: Feed) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in feed.items()}


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind == "f":
        return np.array_equal(one, other, equal_nan=True)
    return bool(np.all(one == other))


def _put_right(
    path: Path,
    kinds: Mapping[str, OutputKind],
    seen: Mapping[str, _Seen],
    stated: Collection[str],
) -> dict[str, OutputKind]:
    """Outputs whose largest entry is always the same one hold figures, or one class only."""
    found = dict(kinds)
    values = {value.name: value for value in graph.load(path).graph.outputs}
    for name, one in seen.items():
        alike = len(one.answers) == 1 and one.count >= _FEWEST and not one.constant
        if kinds[name] != "class" or one.first.dtype.kind != "f" or not alike:
            continue
        guessed = name not in stated and not is_softmaxed(values[name], one.first.ndim)
        if guessed and one.first.shape[-1] <= _MOST_VALUES:
            found[name] = "value"
        _warn_one_answer(name, one, found[name])
    return found


def _doubt(
    seen: Mapping[str, _Seen],
    kinds: Mapping[str, OutputKind],
    noisy: Collection[str],
    count: int,
) -> str | None:
    judged = [name for name, kind in kinds.items() if kind != "state"] or list(kinds)
    if all(name in noisy for name in judged):
        return "the original answers differently each time, so that nothing can be told by it"
    if all(seen[name].hopeless == seen[name].count > 0 for name in judged):
        return "the original's own outputs are not finite"
    if count > 1 and all(seen[name].constant for name in judged):
        return "the original answers all samples alike, so that nothing can be told by them"
    return None


def _warn_of(seen: Mapping[str, _Seen], kinds: Mapping[str, OutputKind]) -> None:
    for name, one in seen.items():
        if one.broken:
            _say(
                f"output {name!r} of the original holds NaN or infinity on {one.broken} of "
                f"{one.count} samples: where it does, nothing is compared",
                code="output_not_finite",
            )
        if one.constant and one.count > 1 and kinds[name] != "state":
            _say(
                f"output {name!r} is the same for all {one.count} samples that were looked at: "
                "it tells nothing of what a compression loses",
                code="constant_output",
            )
        if one.varying and one.first.dtype.kind == "f" and kinds[name] == "value":
            _say(
                f"the shape of output {name!r} varies with what the input holds; a result that "
                "gives another shape counts as lost there",
                code="varying_shape",
            )


def _warn_one_answer(name: str, one: _Seen, kind: OutputKind) -> None:
    then = (
        "it is taken to hold figures, not classes, and judged as a value"
        if kind == "value"
        else "that this answer stays says little; send samples of other classes too"
    )
    _say(
        f"the largest entry of output {name!r} is the same one in all {one.count} samples that "
        f"were looked at: {then} (goal.outputs says what it is)",
        code="one_answer",
    )


def _warn_noise(path: Path, noisy: Sequence[str]) -> None:
    nodes = [node for node in graph.load(path).graph.all_nodes() if _is_random(node)]
    because = ", ".join(f"{node.op_type} {node.name!r}" for node in nodes[:3])
    _say(
        f"the original answers the same sample differently each time ({', '.join(noisy)})"
        + (f", through {because}" if because else "")
        + ": its own noise counts as loss",
        code="not_deterministic",
    )


def _is_random(node: ir.Node) -> bool:
    """Whether a node draws numbers; Dropout does so where its input says that it trains."""
    if node.op_type != "Dropout":
        return node.op_type in _RANDOM
    training = graph.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    return training is not None and bool(training.numpy())


def _say(message: str, *, code: str) -> None:
    warnings.warn(CompressionWarning(message, code=code), stacklevel=4)
