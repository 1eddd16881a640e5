"""What a search leaves for the next one."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests import models
from worker.compression.assessment import Made
from worker.compression.benchmark import Latency, Percentiles
from worker.compression.errors import CompressionWarning
from worker.compression.fidelity import Fidelity
from worker.compression.passes import GraphCleaning, MagnitudePruning
from worker.compression.search.memory import Memory
from worker.compression.search.trial import SPENT, Trial


def trial(folder: Path, *, verdict: str = "faster") -> Trial:
    path = models.written(models.convnet(), folder / "made.onnx")
    pass_ = GraphCleaning()
    milliseconds = Percentiles(p50=1, p90=2, p99=3)
    return Trial(
        name="cleaned",
        passes=[pass_],
        made=[Made(path, pass_, 1.5, [], {"conv": "a reason"}, {"kept": [1]})],
        bytes=path.stat().st_size,
        fidelity=Fidelity(samples=8, source="calibration", outputs=[]),
        latency=Latency(
            shapes={},
            threads=1,
            rounds=10,
            before=milliseconds,
            after=milliseconds,
            speedup=1.5,
            interval=(1.4, 1.6),
            verdict=verdict,
        ),
    )


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    (tmp_path / "cache").mkdir()
    return Memory(tmp_path / "cache", "this model here")


def test_a_trial_comes_back_as_it_was(memory: Memory, tmp_path: Path) -> None:
    one = trial(tmp_path)
    memory.keep([one])
    content = one.path.read_bytes()
    one.path.unlink()
    found = memory.recall("cleaned", one.passes)
    assert found is not None
    assert found.path.read_bytes() == content
    assert replace(found, made=(), recalled=False) == replace(one, made=())
    assert found.made[0].notes == {"conv": "a reason"}
    assert found.made[0].extra == {"kept": [1]}


def test_another_recipe_or_model_is_another_trial(memory: Memory, tmp_path: Path) -> None:
    one = trial(tmp_path)
    memory.keep([one])
    assert memory.recall("cleaned", [MagnitudePruning(amount=0.5)]) is None
    assert Memory(memory.folder, "another model").recall("cleaned", one.passes) is None


def test_what_was_timed_without_quiet_is_timed_again(memory: Memory, tmp_path: Path) -> None:
    one = trial(tmp_path, verdict="unreliable")
    memory.keep([one])
    found = memory.recall("cleaned", one.passes)
    assert found is not None
    assert found.latency is None
    assert found.fidelity == one.fidelity


def test_what_there_was_no_time_for_is_tried_the_next_time(memory: Memory) -> None:
    memory.keep([Trial("cleaned", [GraphCleaning()], reason=SPENT)])
    assert memory.recall("cleaned", [GraphCleaning()]) is None


def test_a_refusal_is_remembered(memory: Memory) -> None:
    memory.keep([Trial("cleaned", [GraphCleaning()], reason="it has no weights")])
    found = memory.recall("cleaned", [GraphCleaning()])
    assert found is not None
    assert found.reason == "it has no weights"


def test_a_damaged_record_is_as_good_as_none(memory: Memory, tmp_path: Path) -> None:
    one = trial(tmp_path)
    memory.keep([one])
    assert memory.folder is not None
    for record in memory.folder.glob("*.json"):
        record.write_text(record.read_text()[:40])
    with pytest.warns(CompressionWarning, match="damaged"):
        assert memory.recall("cleaned", one.passes) is None


def test_a_damaged_model_is_not_handed_out(memory: Memory, tmp_path: Path) -> None:
    one = trial(tmp_path)
    memory.keep([one])
    assert memory.folder is not None
    (file,) = (memory.folder / "files").iterdir()
    file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    with pytest.warns(CompressionWarning, match="damaged"):
        assert memory.recall("cleaned", one.passes) is None
    assert memory.recall("cleaned", one.passes) is None
