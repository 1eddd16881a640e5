"""The price of admission for a method, over the registry."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from pydantic import TypeAdapter, ValidationError

from tests.models import branches, context, convnet, images, normal, opened, run, written
from worker.compression import graph
from worker.compression.errors import CompressionError
from worker.compression.passes import AnyPass, Pass

PASSES: list[type[Pass]] = list(get_args(get_args(AnyPass)[0]))
# What a method cannot do without.
SETTINGS: dict[str, dict[str, Any]] = {
    "magnitude_pruning": {"amount": 0.5},
    "channel_pruning": {"amount": 0.3},
}
every_pass = pytest.mark.parametrize("kind", PASSES, ids=lambda kind: kind.__name__)


def made(kind: type[Pass]) -> Pass:
    method = kind.model_fields["method"].default
    return kind(**SETTINGS.get(method, {}))


@every_pass
def test_settings_survive_json(kind: type[Pass]) -> None:
    reader: TypeAdapter[Pass] = TypeAdapter(AnyPass)
    assert reader.validate_json(made(kind).model_dump_json()) == made(kind)


@every_pass
def test_unknown_settings_are_refused(kind: type[Pass]) -> None:
    with pytest.raises(ValidationError, match="no_such_setting"):
        kind(**made(kind).model_dump(), no_such_setting=1)


@every_pass
def test_every_field_is_described(kind: type[Pass]) -> None:
    bare = [
        name
        for name, field in kind.model_fields.items()
        if name != "method" and not field.description
    ]
    assert bare == []
    assert kind.__doc__


@pytest.mark.filterwarnings("ignore::worker.compression.errors.CompressionWarning")
@every_pass
@pytest.mark.parametrize("opset", [11, 17])
def test_the_result_is_valid_runs_and_keeps_its_interface(
    kind: type[Pass], opset: int, tmp_path: Path
) -> None:
    original = written(convnet(opset=opset), tmp_path / "original.onnx")
    result = made(kind).apply(opened(convnet(opset=opset)), context(tmp_path, images(32)))
    path = tmp_path / "result.onnx"
    graph.save(result, path)
    onnx.checker.check_model(str(path))
    assert graph.inputs(path) == graph.inputs(original)
    assert graph.outputs(path) == graph.outputs(original)
    for batch in (1, 3):
        (output,) = run(path, {"x": normal(batch, 3, 8, 8)}, tmp_path)
        assert output.shape == (batch, 10)
        assert np.isfinite(output).all()


@pytest.mark.filterwarnings("ignore::worker.compression.errors.CompressionWarning")
@every_pass
def test_bodies_of_if_survive_or_are_refused_for_a_reason(
    kind: type[Pass], tmp_path: Path
) -> None:
    feeds = [{"x": normal(2, 4, seed=seed)} for seed in range(16)]
    try:
        result = made(kind).apply(opened(branches()), context(tmp_path, feeds))
    except CompressionError:
        return
    for feed in feeds:
        assert run(result, feed, tmp_path)[0].shape == (2, 4)
