"""What a module must not do to be converted: remember, throw dice, or learn."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from worker.compression import InvalidModel, StatefulModule
from worker.ingest.agreement import Deviation, deviation
from worker.ingest.module import Module
from worker.ingest.samples import Feed

# The argument that says whether the operator behaves as in training, once eval() was called.
_TRAINING_ARGUMENT = {
    "aten::batch_norm": 5,
    "aten::dropout": 2,
    "aten::dropout_": 2,
    "aten::feature_dropout": 2,
    "aten::alpha_dropout": 2,
    "aten::rrelu": 3,
}


def check(open_module: Callable[[], Module], feed: Feed, other: Feed) -> None:
    """Call a fresh module with the same sample twice, and again after another one.

    Raises:
        StatefulModule: it answers differently although all randomness is seeded alike.
        InvalidModel: it is quantized, in training mode, or its answers are random.
    """
    _check_operators(open_module())
    calls = (feed, feed, other, feed)
    answers = _answers(open_module(), calls, seeded=True)
    for later in (answers[1], answers[3]):
        if found := deviation(answers[0], later):
            raise _stateful(found)
    unseeded = _answers(open_module(), (feed, feed), seeded=False)
    if found := deviation(unseeded[0], unseeded[1]):
        raise InvalidModel(
            f"the module's answers are random: a second identical call differs, {found}",
            hint="make it deterministic (call model.eval() before tracing; replace torch.rand "
            "and the like by an input), and save it again",
            code="nondeterministic_module",
        )


def _answers(
    module: Module, calls: tuple[Feed, ...], *, seeded: bool
) -> list[list[np.ndarray]]:
    import torch  # noqa: PLC0415 - the web process never loads torch

    torch.manual_seed(0)
    answers = []
    for feed in calls:
        if seeded:
            torch.manual_seed(0)
        answers.append([output.copy() for output in module(feed)])
    return answers


def _stateful(found: Deviation) -> StatefulModule:
    return StatefulModule(
        f"the module keeps state between calls: a second identical call differs, {found}",
        hint="make the state an input and an output of forward, as in "
        "forward(x, state) -> (y, state), and save it again",
    )


def _check_operators(module: Module) -> None:
    """Refuse int8 operators, and what stayed in training mode: a trace keeps its mode."""
    graph = module.wrapper.inlined_graph  # held: its nodes live only as long
    for node in _nodes(graph):
        kind = node.kind()
        if kind.startswith("quantized::"):
            raise InvalidModel(
                f"the module is quantized already: it holds {kind}, which ONNX cannot express "
                "to the bit",
                hint="send the float model that it was made from; it becomes int8 here",
                code="quantized_module",
            )
        index = _TRAINING_ARGUMENT.get(kind)
        if index is not None and list(node.inputs())[index].toIValue() is True:
            raise InvalidModel(
                f"the module was saved in training mode: its {kind[6:]} still behaves as in "
                "training",
                hint="call model.eval() before torch.jit.trace, give functional dropout "
                "training=self.training, and save it again",
                code="training_mode",
            )


def _nodes(block: Any) -> Iterator[Any]:  # noqa: ANN401 - torch's graph has no types
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)
