import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import models
from tests.compression.test_bound_used import answered
from tests.compression.test_search_memory import trial
from worker.compression.passes import StaticQuantization
from worker.compression.recipe import Recipe
from worker.compression.search.bench import Bench
from worker.compression.search.finalists import finalists
from worker.compression.search.mixed import keep_worst_float
from worker.compression.search.ranking import worst_layers
from worker.compression.search.trial import Trial, inside
from worker.compression.subject import prepare

WIDTH = 32


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Two layers side by side; `rough` has an outlier among its weights, and is drowned."""
    rough = models.normal(WIDTH, WIDTH, seed=1, scale=0.1)
    rough[0] *= 40
    model = models.build(
        f"""g (float[n,{WIDTH}] x) => (float[n,{WIDTH}] y) {{
            a = MatMul(x, fine)  b = MatMul(x, rough)  c = Mul(b, little)  y = Add(a, c) }}""",
        {
            "fine": models.normal(WIDTH, WIDTH, seed=2, scale=0.1),
            "rough": rough,
            "little": np.float32([1e-4]),
        },
    )
    for node, name in zip(model.graph.node, ("fine", "rough", "scaled", "joined"), strict=True):
        node.name = name
    path = models.written(model, tmp_path / "model.onnx")
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=models.normal(40, WIDTH, seed=3))
    subject = prepare(
        path,
        Recipe(),
        workdir=tmp_path,
        progress=lambda *_: None,
        measure=lambda *_: None,
        quiet=lambda: nullcontext(True),
        heard=list,
        calibration=samples,
    )
    return Bench(subject, math.inf)


def quantized(bench: Bench) -> Trial:
    plain = StaticQuantization(ops=["MatMul"], per_channel=False)
    return bench.try_("int8", [plain])


def test_the_worst_layer_is_the_one_that_changes_the_outputs(bench: Bench) -> None:
    shares = worst_layers(bench, quantized(bench))
    assert next(iter(shares)) == "fine"
    assert shares["fine"] > 0.99
    assert sum(shares.values()) == pytest.approx(1)


def test_what_each_layer_does_is_found_once(bench: Bench, tmp_path: Path) -> None:
    one = quantized(bench)
    memory = type(bench.memory)(tmp_path / "memory", "this model")
    bench.memory = memory
    first = worst_layers(bench, one)
    assert memory.effects(one.passes)
    memory.keep_effects(one.passes, {"rough": 3.0, "fine": 1.0})
    assert worst_layers(bench, one) != first


def test_as_few_layers_as_the_bound_asks_for_become_float(bench: Bench) -> None:
    bench.goal = bench.goal.model_copy(update={"min_sqnr_db": 60.0})
    one = quantized(bench)
    assert not inside(one, bench.goal)
    found = keep_worst_float(bench, one)
    assert found.passes[0].keep_float == ["fine"]
    assert inside(found, bench.goal)


def test_of_files_about_as_small_the_one_that_loses_less_comes_first(
    bench: Bench, tmp_path: Path
) -> None:
    subject = replace(bench.subject, recipe=Recipe.parse({"goal": {"objective": "size"}}))
    candidates = [
        replace(
            trial(tmp_path),
            bytes=size,
            fidelity=answered(drop=drop, likely=0.0, answers=2000, samples=2000),
        )
        for size, drop in ((1000, 0.008), (1010, 0.001), (2000, 0.0))
    ]
    found = finalists(subject, candidates)
    assert [one.bytes for one in found] == [1010, 1000, 2000]
