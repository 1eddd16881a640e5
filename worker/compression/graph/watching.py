"""Tensors inside of a model as outputs of a part of it."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from worker.compression.graph.sessions import session


class Watch:
    """The part of a model file that the named tensors need, ready to run.

    The file it needs lies beside the model, since both share external data, until `close`.
    """

    def __init__(self, path: Path, names: Sequence[str], *, threads: int = 1) -> None:
        proto = onnx.load(path, load_external_data=False)
        given = {value.name for value in proto.graph.input}
        self._inside = [name for name in dict.fromkeys(names) if name not in given]
        self._given = [name for name in dict.fromkeys(names) if name in given]
        self._session: ort.InferenceSession | None = None
        if not self._inside:
            return
        _keep(proto.graph, self._inside)
        self._path = path.with_name(f"watched-{path.name}")
        onnx.save(proto, self._path)
        self._session = session(self._path, threads=threads)
        self._read = {spec.name for spec in self._session.get_inputs()}

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The named tensors of one sample; what is no array of floats is absent."""
        values = {name: feed[name] for name in self._given}
        if self._session is not None:
            read = {name: array for name, array in feed.items() if name in self._read}
            values |= zip(self._inside, self._session.run(self._inside, read), strict=True)
        return {
            name: array
            for name, array in values.items()
            if isinstance(array, np.ndarray) and array.dtype.kind == "f"
        }

    def close(self) -> None:
        if self._session is not None:
            self._session = None
            self._path.unlink()


def sizes(path: Path, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Elements of the named tensors in one run, which holds none of them for longer."""
    proto = onnx.load(path, load_external_data=False)
    given = {value.name for value in proto.graph.input}
    inside = [name for name in dict.fromkeys(names) if name not in given]
    found = {name: feed[name].size for name in names if name in given}
    if not inside:
        return found
    counters = {name: f"size of {name}" for name in inside}
    proto.graph.node.extend(
        onnx.helper.make_node("Size", [name], [counter]) for name, counter in counters.items()
    )
    _keep(proto.graph, list(counters.values()))
    counting = path.with_name(f"counted-{path.name}")
    onnx.save(proto, counting)
    running = session(counting)
    read = {spec.name for spec in running.get_inputs()}
    counts = running.run(None, {name: array for name, array in feed.items() if name in read})
    counting.unlink()
    return found | {name: int(count) for name, count in zip(inside, counts, strict=True)}


def _keep(body: Any, names: Sequence[str]) -> None:  # noqa: ANN401 - protobuf has no types
    """Reduce a graph to what the named tensors need, and make these its outputs."""
    needed = set(names)
    nodes = []
    for node in reversed(body.node):
        if needed.intersection(node.output):
            needed.update(_read(node))
            nodes.append(node)
    kept = list(reversed(nodes))
    initializers = [value for value in body.initializer if value.name in needed]
    inputs = [value for value in body.input if value.name in needed]
    for field, values in (("node", kept), ("initializer", initializers), ("input", inputs)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        body.ClearField(field)
        getattr(body, field).extend(copies)
    body.ClearField("output")
    # Without a type: ONNX Runtime infers it.
    body.output.extend(onnx.ValueInfoProto(name=name) for name in names)


def _read(node: Any) -> Iterator[str]:  # noqa: ANN401 - protobuf has no types
    """Names that a node reads, those that its bodies read included."""
    yield from node.input
    for attribute in node.attribute:
        for inner in attribute.g.node:
            yield from _read(inner)
        yield from (value.name for value in attribute.g.output)
