"""Walk a graph once over all samples, stopping before each layer that is to be changed."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.channels.site import read_by
from worker.compression.channels.trace import Feed


@dataclass
class Stored:
    """One value of every sample, in a file."""

    path: Path
    _entries: list[tuple[int, tuple[int, ...], np.dtype]] = field(default_factory=list)

    def append(self, array: np.ndarray) -> None:
        with self.path.open("ab") as file:
            self._entries.append((file.tell(), array.shape, array.dtype))
            file.write(np.ascontiguousarray(array).tobytes())

    def read(self, sample: int) -> np.ndarray:
        start, shape, dtype = self._entries[sample]
        count = int(np.prod(shape))
        return np.fromfile(self.path, dtype=dtype, count=count, offset=start).reshape(shape)


class Frontier:
    """Values at the current cut, of every sample; each node runs once, in its latest form."""

    def __init__(
        self, model: ir.Model, samples: Sequence[Feed], folder: Path, *, threads: int
    ) -> None:
        self._model = model
        self._samples = samples
        self._folder = folder
        self._threads = threads
        self._done: set[str] = set()
        self._stored: dict[str, Stored] = {}
        self._count = 0

    def advance(self, wanted: Iterable[str]) -> None:
        """Run all nodes that the wanted values still need."""
        missing = [name for name in dict.fromkeys(wanted) if not self._is_here(name)]
        nodes = self._needed(missing)
        if not nodes:
            return
        self._done |= {node.name or "" for node in nodes}
        taken, given = self._borders(nodes, missing)
        self._run(nodes, taken, given)
        self._forget(set(wanted))

    def value(self, name: str, sample: int) -> np.ndarray:
        stored = self._stored.get(name)
        return self._samples[sample][name] if stored is None else stored.read(sample)

    def _is_here(self, name: str) -> bool:
        return name in self._stored or name in self._samples[0]

    def _needed(self, wanted: Sequence[str]) -> list[ir.Node]:
        makers = {v.name: node for node in self._model.graph for v in node.outputs if v.name}
        needed: set[str] = set()
        open_ = list(wanted)
        while open_:
            node = makers.get(open_.pop())
            if node is None or node.name in needed or node.name in self._done:
                continue
            needed.add(node.name or "")
            open_ += read_by(node)
        return [node for node in self._model.graph if node.name in needed]

    def _borders(
        self, nodes: Sequence[ir.Node], wanted: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """What the nodes read from before, and what later ones will read of theirs."""
        made = {value.name for node in nodes for value in node.outputs if value.name}
        read = dict.fromkeys(name for node in nodes for name in read_by(node))
        taken = [name for name in read if name not in made and self._is_here(name)]
        later = {name for node in self._waiting() for name in read_by(node)}
        given = [name for name in made if name and (name in wanted or name in later)]
        return taken, sorted(given)

    def _waiting(self) -> Iterator[ir.Node]:
        return (node for node in self._model.graph if node.name not in self._done)

    def _run(self, nodes: Sequence[ir.Node], taken: list[str], given: list[str]) -> None:
        path = self._folder / "segment.onnx"
        samples = range(len(self._samples))
        first = {name: self.value(name, 0) for name in taken}
        graph.save(segment(self._model, nodes, first, given), path)
        session = graph.session(path, threads=self._threads)
        for name in given:
            self._count += 1
            self._stored[name] = Stored(self._folder / f"{self._count}.frontier")
        for sample in samples:
            feed = {name: self.value(name, sample) for name in taken}
            for name, array in zip(given, session.run(given, feed), strict=True):
                self._stored[name].append(array)

    def _forget(self, wanted: set[str]) -> None:
        """Drop values that no waiting node reads."""
        later = {name for node in self._waiting() for name in read_by(node)} | wanted
        for name in [name for name in self._stored if name not in later]:
            self._stored.pop(name).path.unlink()


def segment(
    model: ir.Model, nodes: Sequence[ir.Node], taken: dict[str, np.ndarray], given: list[str]
) -> ir.Model:
    """A model of its own of some nodes of a graph."""
    copy = model.clone()
    keep = {node.name for node in nodes}
    inner = copy.graph
    values = {v.name: v for v in inner.inputs}
    values |= {v.name: v for node in inner for v in node.outputs if v.name}
    inner.outputs.clear()
    inner.outputs.extend(values[name] for name in given)
    inner.remove([node for node in reversed(list(inner)) if node.name not in keep])
    inner.inputs.clear()
    for name, array in taken.items():
        fresh = ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(array.dtype)))
        values[name].replace_all_uses_with(fresh)
        inner.inputs.append(fresh)
    read = {name for node in inner for name in read_by(node)}
    for name in [name for name in inner.initializers if name not in read]:
        inner.initializers.pop(name)
    return copy
