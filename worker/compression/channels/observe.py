"""One pass of the original over the samples: what consumers read and should give."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.channels.layers import Layer
from worker.compression.channels.moments import Moments
from worker.compression.channels.trace import Feed, with_outputs

# Rows for each input of an output, within these limits: enough for a stable Gram.
_ROWS_PER_INPUT = 4
_FEWEST_ROWS, _MOST_ROWS = 2048, 8192
# Samples beyond this add nothing that the rows do not have.
MOST_SAMPLES = 256
# Every so many samples one is held out: it checks what the others are fitted to.
_HELD_OUT = 5


@dataclass
class Targets:
    """Rows that a refit aims at, kept on disk: positions of each sample and values there."""

    path: Path
    positions: list[np.ndarray] = field(default_factory=list)
    _shapes: list[tuple[int, ...]] = field(default_factory=list)
    _starts: list[int] = field(default_factory=list)

    def append(self, positions: np.ndarray, rows: np.ndarray) -> None:
        with self.path.open("ab") as file:
            self._starts.append(file.tell())
            file.write(np.ascontiguousarray(rows, dtype=np.float32).tobytes())
        self.positions.append(positions)
        self._shapes.append(rows.shape)

    def rows(self, sample: int) -> np.ndarray:
        shape = self._shapes[sample]
        count = int(np.prod(shape))
        flat = np.fromfile(
            self.path, dtype=np.float32, count=count, offset=self._starts[sample]
        )
        return flat.reshape(shape)


def is_held_out(sample: int) -> bool:
    """Whether a sample checks rather than fits; the first one never does."""
    return sample % _HELD_OUT == _HELD_OUT - 1


@dataclass(frozen=True)
class Observation:
    """What one pass over the samples found at a layer.

    `moments` are of its inputs on samples not held out, for what ranks by them: `ranks`.
    """

    layer: Layer
    weight: np.ndarray
    moments: Moments
    targets: Targets
    ranks: bool


def observe(
    model: ir.Model,
    layers: Sequence[Layer],
    samples: Sequence[Feed],
    *,
    ranking: Collection[str],
    folder: Path,
    seed: int,
    threads: int,
    progress: Callable[[float], None],
) -> dict[str, Observation]:
    """Run the original once per sample and keep rows at drawn positions, by layer's weight.

    `ranking` names the weights of layers that channels are ranked by.
    """
    names = list(dict.fromkeys(n for layer in layers for n in _names(layer)))
    if not names:
        return {}
    path = folder / "observed.onnx"
    graph.save(with_outputs(model, names), path)
    session = graph.session(path, threads=threads)
    found: dict[str, Observation] = {}
    for number, feed in enumerate(samples):
        values = dict(zip(names, session.run(names, dict(feed)), strict=True))
        for index, layer in enumerate(layers):
            rng = np.random.default_rng((seed, number, index))
            draw = _Draw(rng, len(samples), folder / f"{index}.rows")
            if layer.weight not in found:
                ranks = layer.weight in ranking
                found[layer.weight] = _opened(model, layer, draw.path, ranks=ranks)
            _take(found[layer.weight], values, draw, fits=not is_held_out(number))
        progress((number + 1) / len(samples))
    return found


@dataclass(frozen=True)
class _Draw:
    rng: np.random.Generator
    samples: int
    path: Path


def _names(layer: Layer) -> Iterator[str]:
    yield layer.x
    if layer.mode == "patch":
        yield layer.target


def _opened(model: ir.Model, layer: Layer, path: Path, *, ranks: bool) -> Observation:
    tensor = model.graph.initializers[layer.weight].const_value
    if tensor is None:
        raise ValueError(f"{layer.weight} is not constant")
    weight = tensor.numpy()
    groups, inputs, _ = layer.matrix(weight).shape
    moments = Moments(groups, inputs if ranks else 0, 0)
    return Observation(layer, weight, moments, Targets(path), ranks)


def _take(
    seen: Observation, values: Mapping[str, np.ndarray], draw: _Draw, *, fits: bool
) -> None:
    layer, x = seen.layer, values[seen.layer.x]
    target = values.get(layer.target, x)
    offered = layer.positions(x.shape, target.shape)
    positions = draw.rng.permutation(offered)[: _wanted(layer, x, draw.samples)]
    rows = layer.inputs_at(x, positions)
    if fits and seen.ranks:
        seen.moments.add(rows)
    seen.targets.append(positions, _aims(seen, rows, target, positions))


def _aims(
    seen: Observation, rows: np.ndarray, target: np.ndarray, positions: np.ndarray
) -> np.ndarray:
    if seen.layer.mode == "channel":
        return rows
    if seen.layer.mode == "gates":
        made: np.ndarray = np.einsum("pgk,gkn->pgn", rows, seen.layer.matrix(seen.weight))
        return made
    return seen.layer.outputs_at(target, positions)


def _wanted(layer: Layer, x: np.ndarray, samples: int) -> int:
    """Rows of one sample, so that all samples together give enough."""
    channels = x.shape[-1] if layer.window is None else x.shape[1]
    taps = (
        1 if layer.window is None or layer.mode == "channel" else np.prod(layer.window.kernel)
    )
    wanted = np.clip(_ROWS_PER_INPUT * channels * taps, _FEWEST_ROWS, _MOST_ROWS)
    return int(-(-wanted // samples))
