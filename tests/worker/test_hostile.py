"""R6: models that attack get a code and touch nothing, and the next job succeeds."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from tests.hostile import ARCHIVES, ONNX, TORCHSCRIPT, Maker
from worker.jobs import Job, NewArtifact, NewJob
from worker.services import Services, build_services
from worker.settings import Settings
from worker.tasks.attempt import run_job

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
ME = "local"
MIB = 1 << 20
RECIPE = {"passes": [{"method": "graph_cleaning"}]}
#: A limit that a loop reaches soon, and that the start of a child stays far below.
LOOP_SECONDS, OTHER_SECONDS = 6, 100


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """A worker's services, beside files that belong to somebody else."""
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "secret").write_bytes(b"0123456789abcdef")
    (outside / "secret").chmod(0o666)
    services = build_services(
        Settings(data_dir=tmp_path / "data", measuring_lock=tmp_path / "measuring.lock")
    )
    services.migrate()
    yield services
    services.close()


def stored(services: Services, content: bytes, form: str) -> NewArtifact:
    with services.objects.receive(ME) as incoming:
        incoming.write(content)
        kept = incoming.commit()
    return NewArtifact(
        name="net", format=form, bytes=kept.bytes, sha256=kept.sha256, key=kept.key
    )


def looked_into(services: Services, content: bytes) -> bool:
    """Whether the job that looks into a good model succeeds; it takes a second or two."""
    created = services.artifacts.create(ME, "model", stored(services, content, "onnx"))
    run_job(services, str(created.inspect_job))
    return services.artifacts.get(ME, "model", created.artifact.id).inspection is not None


def submitted(services: Services, content: bytes, form: str) -> Job:
    file = stored(services, content, form)
    inputs = {"x": {"shape": [4]}} if form == "torchscript" else None
    new = NewJob(owner_id=ME, name="net", recipe=RECIPE, model=file, inputs=inputs)
    return services.jobs.create(new).job


def limited(services: Services, seconds: int) -> Services:
    given = {"max_job_seconds": seconds, "max_job_memory_bytes": 1500 * MIB}
    settings = services.settings.model_copy(update=given)
    return replace(services, settings=settings)


def outcome(services: Services, content: bytes, form: str, *, loops: bool) -> str:
    """Run one hostile model; the code of its failure, or how it ended otherwise."""
    seconds = LOOP_SECONDS if loops else OTHER_SECONDS
    job = submitted(services, content, form)
    began = monotonic()
    run_job(limited(services, seconds), job.id)
    assert monotonic() - began < seconds + 5
    seen = services.jobs.get(ME, job.id)
    assert seen.status in ("failed", "succeeded")
    assert seen.attempt == 1
    return str(seen.error["code"]) if seen.error else "succeeded"


@pytest.mark.parametrize(
    ("kind", "form"),
    [(ONNX, "onnx"), (ARCHIVES, "onnx_zip"), (TORCHSCRIPT, "torchscript")],
    ids=["onnx", "zip", "torchscript"],
)
def test_a_hostile_model_gets_a_code_and_nothing_else(
    services: Services, tmp_path: Path, kind: dict[str, tuple[Maker, set[str]]], form: str
) -> None:
    made = {name: make(tmp_path) for name, (make, _) in kind.items()}

    def run(name: str) -> tuple[str, str]:
        loops = "time_limit" in kind[name][1]
        return name, outcome(services, made[name], form, loops=loops)

    with ThreadPoolExecutor(2) as threads:
        found = dict(threads.map(run, kind))
    unexpected = {name: code for name, code in found.items() if code not in kind[name][1]}
    assert unexpected == {}
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["secret"]
    assert (tmp_path / "outside" / "secret").read_bytes() == b"0123456789abcdef"
    assert list(services.settings.scratch.iterdir()) == []
    assert looked_into(services, (DIGITS / "digits.onnx").read_bytes())
