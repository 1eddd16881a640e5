"""What a worker does with a job, with real children in the real sandbox."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnxruntime as ort
import pytest
from onnx import parser
from sqlalchemy import update

from tests.pairs import decoder, encoder, text_samples
from worker.jobs import Job, JobStatus, NewArtifact, NewJob
from worker.jobs.database import now
from worker.jobs.tables import jobs
from worker.services import Services, build_services
from worker.settings import Settings
from worker.tasks.attempt import run_job
from worker.tasks.direct import DirectRuns
from worker.tasks.drain import Drain
from worker.tasks.hearing import Hearing
from worker.tasks.limits import limits_for
from worker.tasks.slots import Slots
from worker.tasks.summary import Unreadable, summarize
from worker.tasks.upkeep import Upkeep

DIGITS = Path(__file__).parents[2] / "examples" / "digits"
ME = "local"


@pytest.fixture
def make_services(tmp_path: Path) -> Iterator[Callable[..., Services]]:
    """Services over one data folder, with settings of the test's own."""
    made: list[Services] = []

    def make(**given: object) -> Services:
        services = build_services(Settings(data_dir=tmp_path, **given))  # type: ignore[arg-type]
        services.migrate()
        made.append(services)
        return services

    yield make
    for services in made:
        services.close()


@pytest.fixture
def services(make_services: Callable[..., Services]) -> Services:
    return make_services()


def stored(services: Services, content: bytes, name: str = "digits.onnx") -> NewArtifact:
    with services.objects.receive(ME) as incoming:
        incoming.write(content)
        kept = incoming.commit()
    return NewArtifact(
        name=name, format="onnx", bytes=kept.bytes, sha256=kept.sha256, key=kept.key
    )


def digits_job(services: Services, **recipe: object) -> Job:
    """A queued job over the digits example."""
    new = NewJob(
        owner_id=ME,
        name="digits",
        recipe=recipe or {"passes": [{"method": "magnitude_pruning", "amount": 0.2}]},
        model=stored(services, (DIGITS / "digits.onnx").read_bytes()),
        calibration=stored(
            services, (DIGITS / "calibration.npz").read_bytes(), "calibration.npz"
        ),
    )
    return services.jobs.create(new).job


def in_thread(run: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def wait_until(happened: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children() -> set[int]:
    """Processes that this one started and that live."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    return {
        int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()
    }


def left_behind(services: Services) -> list[Path]:
    folders = [services.settings.scratch, Path(services.settings.storage) / ME / "results"]
    return [path for folder in folders if folder.exists() for path in folder.iterdir()]


def test_a_job_ends_with_model_and_report(services: Services, tmp_path: Path) -> None:
    job = digits_job(services)
    run_job(services, job.id)
    seen = services.jobs.get(ME, job.id)
    assert (seen.status, seen.error, seen.progress) == ("succeeded", None, 1)
    assert {"model.onnx", "report.json", "report.html", "bundle.zip"} <= set(seen.results)
    for file in seen.results.values():
        assert file.key.startswith(f"{ME}/results/{job.id}/1-")
        assert services.objects.stat(file.key) == file.bytes
    services.objects.fetch(seen.results["model.onnx"].key, tmp_path / "model.onnx")
    ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    report = json.loads(b"".join(services.objects.read(seen.results["report.json"].key)))
    assert seen.summary is not None
    assert seen.summary["bytes_before"] == report["before"]["bytes"] == job.model.bytes
    assert seen.summary["verdict"] == report["verdict"]["outcome"]
    assert seen.sandbox["rlimits"] == "ok"
    assert list(services.settings.scratch.iterdir()) == []
    told = [event for event in services.jobs.events(ME, job.id) if event.cause == "progress"]
    shares = [event.progress for event in told]
    assert shares
    assert shares == sorted(shares)


def test_encoder_and_decoder_are_judged_together_and_go_together(
    services: Services, tmp_path: Path
) -> None:
    files = encoder(tmp_path / "e.onnx"), decoder(tmp_path / "d.onnx")
    first, second = (stored(services, path.read_bytes(), path.name) for path in files)
    samples = text_samples(tmp_path / "text.npz").read_bytes()
    new = NewJob(
        owner_id=ME,
        name="encoder",
        recipe={"passes": [{"method": "weight_quantization"}]},
        model=first,
        partner=second,
        calibration=stored(services, samples, "text.npz"),
    )
    job = services.jobs.create(new).job
    run_job(services, job.id)
    seen = services.jobs.get(ME, job.id)
    assert (seen.status, seen.error) == ("succeeded", None)
    report = json.loads(b"".join(services.objects.read(seen.results["report.json"].key)))
    assert report["accuracy"]["metric"] == "greedy_decoding"
    gone = services.jobs.delete(ME, job.id)
    assert gone is not None
    assert {first.key, second.key} <= set(gone)


def test_an_uploaded_model_is_looked_into(services: Services) -> None:
    file = stored(services, (DIGITS / "digits.onnx").read_bytes())
    created = services.artifacts.create(ME, "model", file)
    run_job(services, str(created.inspect_job))
    seen = services.artifacts.get(ME, "model", created.artifact.id)
    assert seen.inspection_error is None
    assert seen.inspection


def test_a_file_that_is_no_model_fails_with_a_code_and_a_remedy(services: Services) -> None:
    new = NewJob(owner_id=ME, name="x", recipe={}, model=stored(services, b"not a model" * 99))
    job = services.jobs.create(new).job
    run_job(services, job.id)
    seen = services.jobs.get(ME, job.id)
    assert seen.status == "failed"
    assert seen.error is not None
    assert seen.error["code"] in ("invalid_model", "unknown_format")
    assert seen.error["hint"]
    assert "Traceback" not in json.dumps(seen.error)
    assert left_behind(services) == []


def test_a_message_calls_a_file_as_its_owner_does(services: Services) -> None:
    text = '<ir_version: 8, opset_import: ["" : 17]> net (float[1] x) => () { y = Relu (x) }'
    model = stored(services, parser.parse_model(text).SerializeToString(), "mine.onnx")
    job = services.jobs.create(NewJob(owner_id=ME, name="x", recipe={}, model=model)).job
    run_job(services, job.id)
    error = services.jobs.get(ME, job.id).error
    assert error is not None
    assert error["detail"] == "mine.onnx holds no graph with an output"


def test_a_job_runs_once_however_often_it_is_announced(services: Services) -> None:
    file = stored(services, b"not a model")
    created = services.artifacts.create(ME, "model", file)
    announced = [
        in_thread(lambda: run_job(services, str(created.inspect_job))) for _ in range(3)
    ]
    for thread in announced:
        thread.join()
    run_job(services, str(created.inspect_job))
    run_job(services, "no-such-job")
    assert services.artifacts.get(ME, "model", created.artifact.id).inspection_error


def test_a_canceled_job_stops_within_five_seconds(services: Services) -> None:
    job = digits_job(services)
    before = children()
    worker = in_thread(lambda: run_job(services, job.id))
    wait_until(lambda: bool(children() - before))
    services.jobs.cancel(ME, job.id)
    asked = time.monotonic()
    worker.join()
    assert time.monotonic() - asked < 5
    assert children() <= before
    assert services.jobs.get(ME, job.id).status == "canceled"
    assert left_behind(services) == []


def test_a_deleted_job_vanishes_with_its_files(services: Services) -> None:
    job = digits_job(services)
    worker = in_thread(lambda: run_job(services, job.id))
    wait_until(lambda: services.jobs.get(ME, job.id).status is JobStatus.RUNNING)
    assert services.jobs.delete(ME, job.id) is None
    worker.join()
    assert [path for path in Path(services.settings.storage).rglob("*") if path.is_file()] == []


def test_a_worker_whose_job_was_taken_over_publishes_nothing(
    make_services: Callable[..., Services],
) -> None:
    services = make_services(renew_seconds=60)
    job = digits_job(services)
    worker = in_thread(lambda: run_job(services, job.id))
    wait_until(lambda: services.jobs.get(ME, job.id).status is JobStatus.RUNNING)
    with services.database.write() as connection:
        connection.execute(update(jobs).values(lease_until=now() - 1))
    assert [taken.queued for taken in services.leases.reap()] == [True]
    taken_over = services.leases.claim(job.id, holder="another")
    worker.join()
    assert taken_over is not None
    assert services.leases.look(taken_over).held
    assert left_behind(services) == []


def test_a_stopping_worker_hands_its_job_back(services: Services) -> None:
    job, drain = digits_job(services), Drain()
    assert not drain.begun()
    worker = in_thread(lambda: run_job(services, job.id, draining=drain.due))
    wait_until(lambda: services.jobs.get(ME, job.id).status is JobStatus.RUNNING)
    drain.begin(grace_seconds=0.5)
    worker.join()
    seen = services.jobs.get(ME, job.id)
    assert (seen.status, seen.losses) == ("queued", 0)
    assert left_behind(services) == []


def test_a_job_that_takes_too_long_fails_with_the_cause(
    make_services: Callable[..., Services],
) -> None:
    services = make_services(max_job_seconds=1)
    job = digits_job(services)
    run_job(services, job.id)
    seen = services.jobs.get(ME, job.id)
    assert seen.error is not None
    assert (seen.status, seen.error["code"], seen.attempt) == ("failed", "time_limit", 1)
    assert left_behind(services) == []


def test_the_limits_of_a_job_come_from_the_settings_and_its_size(
    make_services: Callable[..., Services],
) -> None:
    services = make_services()
    job = digits_job(services)
    by_size = limits_for(job, services.settings)
    assert 2 * 2**30 < by_size.memory_bytes < 3 * 2**30
    assert by_size.wall_seconds == 3600
    given = {"max_job_memory_bytes": 10**9, "max_job_disk_bytes": 10**8, "max_job_seconds": 9}
    limits = limits_for(job, make_services(**given).settings)
    assert (limits.memory_bytes, limits.disk_bytes, limits.wall_seconds) == (10**9, 10**8, 9)


@pytest.mark.parametrize("megabytes", [20, 100, 120, 175])
def test_too_little_memory_is_named_wherever_a_library_fails_for_it(
    make_services: Callable[..., Services], megabytes: int
) -> None:
    services = make_services(max_job_memory_bytes=megabytes * 2**20)
    job = digits_job(services)
    run_job(services, job.id)
    error = services.jobs.get(ME, job.id).error
    assert error is not None
    assert (error["code"], error["cause"]) == ("out_of_memory", "out_of_memory")


def test_a_killed_child_is_tried_again_once(services: Services) -> None:
    job = digits_job(services)
    for attempt in (1, 2):
        before = children()
        worker = in_thread(lambda: run_job(services, job.id))
        wait_until(lambda: bool(children() - before))  # noqa: B023 - used within the turn
        for pid in children() - before:
            os.kill(pid, 9)
        worker.join()
        assert services.jobs.get(ME, job.id).attempt == attempt
        assert services.jobs.get(ME, job.id).status == ("queued", "failed")[attempt - 1]


def test_a_job_whose_model_is_gone_says_so(services: Services) -> None:
    job = digits_job(services)
    services.objects.delete(job.model.key)
    run_job(services, job.id)
    error = services.jobs.get(ME, job.id).error
    assert error is not None
    assert error["code"] == "files_gone"


def test_a_store_that_fails_costs_an_attempt_and_not_the_job(services: Services) -> None:
    job = digits_job(services)
    services.settings.scratch.write_text("no folder can be made here")
    run_job(services, job.id)
    seen = services.jobs.get(ME, job.id)
    assert (seen.status, seen.attempt, seen.losses) == ("queued", 1, 1)


def messages(services: Services) -> list[Path]:
    return sorted((services.settings.data_dir / "broker" / "messages").glob("*.msg"))


def hearing(*, broker_answers: bool = True, heard: Callable[[], int] = lambda: 0) -> Hearing:
    return Hearing(heard=heard, broker_answers=lambda: broker_answers, deaf_seconds=0.01)


def upkeep(services: Services, *, free_slots: int) -> Upkeep:
    return Upkeep(
        services,
        free_slots=lambda: free_slots,
        hearing=hearing(),
        direct=DirectRuns(services.settings, Slots(1)),
        drain=lambda: None,
    )


def test_waiting_jobs_are_enqueued_again_as_many_as_can_start(services: Services) -> None:
    for _ in range(3):
        digits_job(services)
    assert messages(services) == []
    upkeep(services, free_slots=0).requeue()
    upkeep(services, free_slots=2).requeue()
    services.publisher.enqueue("last", size_class="large")
    wait_until(lambda: any(".large." in path.name for path in messages(services)))
    assert len(messages(services)) == 3


def test_a_job_that_no_message_announces_is_run_all_the_same(
    make_services: Callable[..., Services],
) -> None:
    services = make_services(direct_seconds=0.01)
    file = stored(services, b"not a model")
    created = services.artifacts.create(ME, "model", file)
    slots = Slots(1)
    direct = DirectRuns(services.settings, slots)
    chore = Upkeep(
        services,
        free_slots=lambda: 1,
        hearing=hearing(broker_answers=False),
        direct=direct,
        drain=lambda: None,
    )
    chore.look()
    time.sleep(0.02)
    chore.look()
    assert direct.count() == 1

    def looked_into() -> bool:
        seen = services.artifacts.get(ME, "model", created.artifact.id)
        return seen.inspection_error is not None

    wait_until(looked_into)
    wait_until(lambda: direct.count() == 0)


def test_a_slot_is_free_again_when_the_process_that_held_it_is_dead() -> None:
    slots = Slots(2)
    code = "import sys; from worker.tasks.slots import Slots; "
    code += "held = Slots(2, int(sys.argv[1])).taken(); print(held.__enter__(), flush=True); "
    code += "input()"
    command = [sys.executable, "-c", code, str(slots.descriptor)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, pass_fds=[slots.descriptor], **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == b"0\n"
        with slots.taken() as first, slots.taken() as again:
            assert first == 1
            assert again == 1  # a process is not in its own way: it runs one job at a time
        other.kill()
    with slots.taken() as number:
        assert number == 0


def test_a_worker_that_hears_nothing_although_the_broker_answers_is_deaf() -> None:
    count = [0]
    listening = hearing(heard=lambda: count[0])
    assert not listening.missed()
    time.sleep(0.02)
    assert listening.missed()
    count[0] += 1
    listening.listen()
    assert not listening.in_vain
    assert not listening.missed()
    assert not any(hearing(broker_answers=False).missed() for _ in range(3))


def test_upkeep_takes_over_from_the_dead_and_clears_their_scratch(services: Services) -> None:
    code = "from worker.jobs import current_holder; print(current_holder())"
    dead = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
    lost = services.leases.claim(digits_job(services).id, holder=dead)
    alive = services.leases.claim(digits_job(services).id, holder="elsewhere")
    assert lost is not None
    assert alive is not None
    for job in (lost, alive):
        (services.settings.scratch / str(job.lease_id)).mkdir(parents=True)
    upkeep(services, free_slots=0).tick()
    assert services.jobs.get(ME, lost.id).status == "queued"
    wait_until(lambda: len(messages(services)) == 1)
    assert [f.name for f in services.settings.scratch.iterdir()] == [alive.lease_id]
    assert len(services.workers.alive()) == 1


def test_a_dead_broker_never_holds_up_who_enqueues(
    make_services: Callable[..., Services],
) -> None:
    services = make_services(broker_url="redis://127.0.0.1:1/0")
    began = time.monotonic()
    for _ in range(2000):
        services.enqueue("job")
    assert time.monotonic() - began < 1


def test_a_message_that_cannot_be_read_does_not_hold_up_the_next(services: Services) -> None:
    services.publisher.publish("first")
    folder = services.settings.data_dir / "broker" / "messages"
    (folder / "00000_torn.modelpress.small.msg").write_bytes(b"")
    services.publisher.publish("second")
    received = []
    with services.publisher.app.connection_for_read() as connection:
        queue = connection.SimpleQueue("modelpress.small")
        while len(received) < 2:
            message = queue.get(timeout=5)
            message.ack()
            received.append(message.payload[0][0])
        queue.close()
    assert received == ["first", "second"]
    assert messages(services) == []


def test_a_report_that_is_none_is_refused() -> None:
    with pytest.raises(Unreadable):
        summarize({"verdict": {"outcome": "better"}})


@pytest.mark.parametrize(("verdict", "claimed"), [("faster", 2.0), ("unreliable", None)])
def test_a_summary_claims_only_what_the_report_could_rely_on(
    verdict: str, claimed: float | None
) -> None:
    timed = {"before": {"p50": 2.0}, "after": {"p50": 1.0}, "speedup": 2.0, "verdict": verdict}
    lost = {"drop": 0.02, "sqnr_db": 12.5}
    report = {
        "verdict": {"outcome": "as_asked", "sentence": "Done.", **lost},
        "before": {"bytes": 100},
        "after": {"bytes": 40},
        "latency": [timed, timed | {"speedup": 9.0, "verdict": "faster"}],
        "warnings": [{"code": "a", "message": "b"}],
    }
    summary, warnings = summarize(report)
    assert summary["speedup"] == claimed
    assert {key: summary[key] for key in lost} == lost
    assert warnings == [{"code": "a", "message": "b"}]
