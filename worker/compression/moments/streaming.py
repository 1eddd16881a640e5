"""One pass over the samples for as many layers as memory holds at once."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.moments.linear import Linear
from worker.compression.moments.sums import Moments, Rounding

# Sums and activations held at once; layers beyond that wait for another pass.
_HELD_BYTES = 100_000_000
# Rows for each input of an output, within these limits: enough for a stable Gram. A depthwise
# Conv has few inputs for each output, and its many groups make rows dear.
_ROWS_PER_INPUT = 4
_FEWEST_ROWS, _FEWEST_GROUPED_ROWS, _MOST_ROWS = 4096, 1024, 20_000


def stream(
    path: Path,
    layers: Sequence[Linear],
    samples: CalibrationSet,
    *,
    seed: int,
    threads: int = 1,
    held_bytes: int = _HELD_BYTES,
    rounded: Mapping[str, Rounding] = {},
    progress: Callable[[float], None] = lambda share: None,
) -> Iterator[tuple[Linear, Moments]]:
    """Moments of what each layer of a model file reads, over rows drawn from every sample.

    Layers that no sample gave rows are absent. Whoever drops a pair before asking for the next
    keeps memory within `held_bytes`. `rounded` tells, by name of a tensor, what its layers will
    read in its place. Files are written beside the model.
    """
    if not layers:
        return
    parts = _parts(path, layers, samples[0], held_bytes)
    for number, part in enumerate(parts):
        sums = {
            layer: Moments(layer.groups, layer.inputs, rounded.get(layer.x)) for layer in part
        }
        watch = graph.Watch(path, [layer.x for layer in part], threads=threads)
        for position in range(len(samples)):
            # Nothing of a sample may outlive it: two samples at once are twice the memory.
            _take(sums, watch.run(samples[position]), (seed, position), len(samples))
            progress((number + (position + 1) / len(samples)) / len(parts))
        watch.close()
        for layer in part:
            moments = sums.pop(layer)
            moments.settle()
            if moments.count:
                yield layer, moments


def _take(
    sums: Mapping[Linear, Moments],
    values: Mapping[str, np.ndarray],
    seed: tuple[int, int],
    samples: int,
) -> None:
    for layer, moments in sums.items():
        x = values.get(layer.x)
        if x is None or x.size == 0:
            continue
        fewest = _FEWEST_ROWS if layer.groups == 1 else _FEWEST_GROUPED_ROWS
        wanted = np.clip(_ROWS_PER_INPUT * layer.inputs, fewest, _MOST_ROWS)
        # By name: what is drawn does not depend on which other layers are asked for.
        rng = np.random.default_rng((*seed, zlib.crc32(layer.node.encode())))
        moments.add(layer.rows(x, int(-(-wanted // samples)), rng))


def _parts(
    path: Path, layers: Sequence[Linear], feed: Mapping[str, np.ndarray], held_bytes: int
) -> list[list[Linear]]:
    """Layers in groups whose sums and activations may be held together."""
    elements = graph.sizes(path, [layer.x for layer in layers], feed)
    parts: list[list[Linear]] = [[]]
    held = 0
    for layer in layers:
        needed = Moments.bytes_for(layer.groups, layer.inputs) + 4 * elements[layer.x]
        if parts[-1] and held + needed > held_bytes:
            parts.append([])
            held = 0
        parts[-1].append(layer)
        held += needed
    return parts
