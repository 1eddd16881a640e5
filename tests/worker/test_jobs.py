"""The record of jobs: one contract, over SQLite and a real PostgreSQL."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text, update

from worker.jobs import (
    ArtifactStore,
    Database,
    Failure,
    Figures,
    FilesGone,
    Idempotency,
    IdempotencyConflict,
    InUse,
    InvalidCursor,
    Job,
    JobStatus,
    JobStore,
    KeyStore,
    Leases,
    NewArtifact,
    NewJob,
    NotFound,
    NotRetryable,
    ResultFile,
    WorkerRegister,
    current_holder,
    is_gone,
    migrate,
)
from worker.jobs.database import connected, now
from worker.jobs.tables import jobs, metadata

ME, OTHER = "local", "somebody"


def a_file(content: str = "model", name: str = "net.onnx") -> NewArtifact:
    key = f"{ME}/uploads/{content}-{uuid4().hex}"
    return NewArtifact(name=name, format="onnx", bytes=9, sha256=f"{content:0>64}", key=key)


def a_job(owner: str = ME, **given: object) -> NewJob:
    values = {"owner_id": owner, "name": "net", "recipe": {"passes": "auto"}, "model": a_file()}
    return NewJob(**(values | given))  # type: ignore[arg-type]


def claimed(store: JobStore, leases: Leases, **given: object) -> Job:
    created = store.create(a_job(**given))
    job = leases.claim(created.job.id, holder=current_holder())
    assert job is not None
    return job


def let_the_lease_run_out(database: Database, job: Job) -> None:
    with database.write() as connection:
        ended = update(jobs).where(jobs.c.id == job.id).values(lease_until=now() - 1)
        connection.execute(ended)


RESULTS = {"model.onnx": ResultFile(key="local/results/x", bytes=3, sha256="ab")}


def publish(leases: Leases, job: Job, results: dict[str, ResultFile] = RESULTS) -> bool:
    summary = {"verdict": "better"}
    ended = leases.publish(job, results=results, summary=summary, warnings=[], sandbox={})
    return ended.accepted


def fail(leases: Leases, job: Job) -> tuple[str, ...]:
    return leases.fail(job, Failure(code="invalid_model", detail="no model")).unused


def test_a_created_job_is_queued_and_holds_what_was_asked(store: JobStore) -> None:
    job = store.create(a_job(inputs={"x": {"shape": [1]}}, calibration=a_file("data"))).job
    assert (job.status, job.stage, job.progress, job.attempt) == ("queued", "queued", 0, 0)
    assert job.recipe == {"passes": "auto"}
    assert job.inputs == {"x": {"shape": [1]}}
    assert job.model.name == "net.onnx"
    assert job.calibration is not None
    assert job.evaluation is None
    assert store.get(ME, job.id) == job


def test_a_foreign_job_does_not_exist(store: JobStore) -> None:
    job = store.create(a_job()).job
    for call in (store.get, store.events, store.cancel, store.retry, store.delete):
        with pytest.raises(NotFound):
            call(OTHER, job.id)
    assert store.page(OTHER).items == []
    assert store.get(ME, job.id) == job


def test_a_foreign_artifact_cannot_be_compressed(
    store: JobStore, artifacts: ArtifactStore
) -> None:
    model = artifacts.create(OTHER, "model", a_file()).artifact
    with pytest.raises(NotFound):
        store.create(a_job(model=model.id))
    assert store.page(ME).items == []


def test_a_data_set_is_not_a_model(store: JobStore, artifacts: ArtifactStore) -> None:
    data = artifacts.create(ME, "dataset", a_file()).artifact
    with pytest.raises(NotFound):
        store.create(a_job(model=data.id))


def test_pages_show_every_job_once_newest_first(store: JobStore) -> None:
    made = [store.create(a_job()).job.id for _ in range(5)]
    seen, cursor = [], None
    for _ in range(3):
        page = store.page(ME, limit=2, cursor=cursor)
        seen += [job.id for job in page.items]
        cursor = page.next_cursor
    assert seen == made[::-1]
    assert cursor is None


def test_pages_can_be_limited_to_a_status(store: JobStore, leases: Leases) -> None:
    store.create(a_job())
    running = claimed(store, leases)
    page = store.page(ME, status=JobStatus.RUNNING)
    assert [job.id for job in page.items] == [running.id]


@pytest.mark.parametrize("cursor", ["", "x", "1; DROP TABLE jobs", "\0"])
def test_a_cursor_that_is_none_is_refused(store: JobStore, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        store.page(ME, cursor=cursor)


def test_twenty_requests_with_one_key_make_one_job(store: JobStore) -> None:
    key = Idempotency(key="once", request_sha256="a")
    with ThreadPoolExecutor(20) as threads:
        created = list(threads.map(lambda _: store.create(a_job(), idempotency=key), range(20)))
    assert len({one.job.id for one in created}) == 1
    assert sum(not one.replayed for one in created) == 1
    assert all(one.unused for one in created if one.replayed)
    assert len(store.page(ME).items) == 1


def test_a_key_used_for_another_request_is_a_conflict(store: JobStore) -> None:
    store.create(a_job(), idempotency=Idempotency(key="k", request_sha256="a"))
    with pytest.raises(IdempotencyConflict):
        store.create(a_job(), idempotency=Idempotency(key="k", request_sha256="b"))
    store.create(a_job(OTHER), idempotency=Idempotency(key="k", request_sha256="b"))


def test_of_many_claims_exactly_one_succeeds(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job()).job
    with ThreadPoolExecutor(10) as threads:
        won = list(threads.map(lambda _: leases.claim(job.id, holder="x"), range(10)))
    assert sum(one is not None for one in won) == 1
    assert store.get(ME, job.id).attempt == 1


def test_progress_is_on_record_and_never_reaches_one(store: JobStore, leases: Leases) -> None:
    job = claimed(store, leases)
    assert leases.progress(job, stage="search", share=1.0, message="7 of 9")
    seen = store.get(ME, job.id)
    assert (seen.stage, seen.message) == ("search", "7 of 9")
    assert 0.99 < seen.progress < 1


def test_a_published_job_has_succeeded(store: JobStore, leases: Leases) -> None:
    job = claimed(store, leases)
    assert publish(leases, job)
    seen = store.get(ME, job.id)
    assert (seen.status, seen.progress, seen.result_format) == ("succeeded", 1, "onnx")
    assert seen.results == RESULTS
    assert seen.summary == {"verdict": "better"}
    assert seen.finished_at is not None
    assert seen.started_at is not None
    assert seen.created_at <= seen.started_at <= seen.finished_at


def test_a_worker_that_lost_its_lease_can_change_nothing(
    store: JobStore, leases: Leases, database: Database
) -> None:
    late = claimed(store, leases)
    let_the_lease_run_out(database, late)
    assert [taken.queued for taken in leases.reap()] == [True]
    second = leases.claim(late.id, holder=current_holder())
    assert second is not None
    before = store.get(ME, late.id)
    assert not leases.renew(late)
    assert not leases.progress(late, stage="report", share=0.9, message="late")
    assert not publish(leases, late, {"model.onnx": replace(RESULTS["model.onnx"], key="late")})
    assert not leases.fail(late, Failure(code="crashed", detail="late")).accepted
    assert not leases.canceled(late).accepted
    assert not leases.release(late)
    assert leases.lose(late, cause="late").queued is False
    assert not leases.look(late).held
    assert store.get(ME, late.id) == before
    assert publish(leases, second)


def test_a_publication_whose_answer_got_lost_can_be_repeated(
    store: JobStore, leases: Leases
) -> None:
    job = claimed(store, leases)
    assert publish(leases, job)
    assert publish(leases, job)
    assert len([e for e in store.events(ME, job.id) if e.cause == "published"]) == 1


def test_a_lease_that_is_renewed_is_not_reaped(
    store: JobStore, leases: Leases, database: Database
) -> None:
    job = claimed(store, leases)
    let_the_lease_run_out(database, job)
    assert leases.renew(job)
    assert leases.reap() == []
    assert store.get(ME, job.id).status == "running"


def test_after_three_lost_workers_the_job_has_failed(
    store: JobStore, leases: Leases, database: Database
) -> None:
    job_id = store.create(a_job()).job.id
    for attempt in (1, 2, 3):
        job = leases.claim(job_id, holder="x")
        assert job is not None
        assert job.attempt == attempt
        let_the_lease_run_out(database, job)
        leases.reap()
    lost = store.get(ME, job_id)
    assert lost.status == "failed"
    assert lost.error is not None
    assert lost.error["code"] == lost.error["cause"] == "worker_lost"
    assert leases.claim(job_id, holder="x") is None
    assert leases.queued(10) == []


def test_a_dead_process_of_this_host_loses_its_job_at_once(
    store: JobStore, leases: Leases
) -> None:
    code = "from worker.jobs import current_holder; print(current_holder())"
    dead = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()
    job_id = store.create(a_job()).job.id
    leases.claim(job_id, holder=dead)
    assert [taken.job_id for taken in leases.reap()] == [job_id]
    assert store.get(ME, job_id).status == "queued"


def test_only_what_is_certainly_dead_is_gone() -> None:
    place, _, start = current_holder().rsplit("/", 2)
    assert not is_gone(current_holder())
    assert is_gone(f"{place}/{os.getpid()}/{int(start) - 1}"), "a number that is used again"
    assert not is_gone(f"another-boot.1/{os.getpid()}/1"), "another machine cannot be seen"
    assert not is_gone(None)


def test_a_worker_that_stops_hands_its_job_back_without_a_loss(
    store: JobStore, leases: Leases
) -> None:
    job = claimed(store, leases)
    assert leases.release(job)
    waiting = store.get(ME, job.id)
    assert (waiting.status, waiting.stage, waiting.losses) == ("queued", "queued", 0)
    again = leases.claim(job.id, holder="x")
    assert again is not None
    assert again.attempt == 2, "so progress may begin anew without falling within an attempt"


def test_a_queued_job_is_canceled_at_once(store: JobStore, leases: Leases) -> None:
    job = store.create(a_job()).job
    canceled = store.cancel(ME, job.id)
    assert canceled.status == "canceled"
    assert canceled.finished_at is not None
    assert leases.claim(job.id, holder="x") is None
    assert store.cancel(ME, job.id) == canceled


def test_a_running_job_is_asked_to_stop(store: JobStore, leases: Leases) -> None:
    job = claimed(store, leases)
    assert not leases.look(job).cancel_requested
    assert store.cancel(ME, job.id).status == "running"
    assert leases.look(job).cancel_requested
    leases.canceled(job)
    assert store.get(ME, job.id).status == "canceled"


def test_a_canceled_job_whose_worker_is_lost_does_not_run_again(
    store: JobStore, leases: Leases, database: Database
) -> None:
    job = claimed(store, leases)
    store.cancel(ME, job.id)
    let_the_lease_run_out(database, job)
    leases.reap()
    assert store.get(ME, job.id).status == "canceled"


def test_only_failed_and_canceled_jobs_are_retried(store: JobStore, leases: Leases) -> None:
    job = claimed(store, leases)
    with pytest.raises(NotRetryable):
        store.retry(ME, job.id)
    fail(leases, job)
    assert store.get(ME, job.id).error is not None
    again = store.retry(ME, job.id)
    assert (again.id, again.status, again.error) == (job.id, "queued", None)
    second = leases.claim(job.id, holder="x")
    assert second is not None
    assert second.attempt == 2


def test_a_job_whose_model_was_deleted_cannot_be_retried(
    store: JobStore, artifacts: ArtifactStore
) -> None:
    model = artifacts.create(ME, "model", a_file()).artifact
    job = store.create(a_job(model=model.id)).job
    store.cancel(ME, job.id)
    artifacts.delete(ME, "model", model.id)
    with pytest.raises(FilesGone):
        store.retry(ME, job.id)


def test_deleting_an_ended_job_gives_its_files(store: JobStore, leases: Leases) -> None:
    job = claimed(store, leases)
    publish(leases, job)
    keys = store.delete(ME, job.id)
    assert keys is not None
    assert set(keys) == {"local/results/x", job.model.key}
    with pytest.raises(NotFound):
        store.get(ME, job.id)


def test_deleting_a_running_job_makes_it_vanish_when_it_stops(
    store: JobStore, leases: Leases
) -> None:
    job = claimed(store, leases)
    assert store.delete(ME, job.id) is None
    assert leases.look(job).cancel_requested
    assert store.page(ME).items == []
    with pytest.raises(NotFound):
        store.get(ME, job.id)
    assert leases.canceled(job).unused == (job.model.key,)
    assert leases.held_leases() == set()


def test_every_change_is_an_event(store: JobStore, leases: Leases) -> None:
    job = claimed(store, leases)
    leases.progress(job, stage="clean", share=0.2, message="folding")
    store.cancel(ME, job.id)
    leases.canceled(job)
    events = store.events(ME, job.id)
    causes = ["created", "claimed", "progress", "cancel_requested", "canceled"]
    assert [event.cause for event in events] == causes
    assert [event.version for event in events] == [1, 2, 3, 4, 5]
    assert store.get(ME, job.id).version == 5
    assert [event.version for event in store.events(ME, job.id, since=3)] == [4, 5]
    assert store.events(ME, job.id, since=5) == []


def test_equal_content_is_stored_once_per_owner(artifacts: ArtifactStore) -> None:
    first, second = a_file("same"), a_file("same")
    kept = artifacts.create(ME, "model", first).artifact
    again = artifacts.create(ME, "model", second)
    assert again.artifact.key == kept.key == first.key
    assert again.unused == (second.key,)
    foreign = artifacts.create(OTHER, "model", third := a_file("same"))
    assert foreign.artifact.key == third.key
    assert artifacts.delete(ME, "model", kept.id) == ()
    assert artifacts.delete(ME, "model", again.artifact.id) == (first.key,)


def test_an_artifact_in_use_is_not_deleted(
    store: JobStore, artifacts: ArtifactStore, leases: Leases
) -> None:
    data = artifacts.create(ME, "dataset", a_file("data")).artifact
    job = claimed(store, leases, calibration=data.id)
    with pytest.raises(InUse) as refused:
        artifacts.delete(ME, "dataset", data.id)
    assert refused.value.job_ids == (job.id,)
    fail(leases, job)
    assert artifacts.delete(ME, "dataset", data.id) == (data.key,)


def test_files_that_came_with_a_job_are_not_listed_and_go_with_it(
    store: JobStore, artifacts: ArtifactStore
) -> None:
    job = store.create(a_job(calibration=a_file("data"))).job
    assert artifacts.page(ME, "model").items == []
    with pytest.raises(NotFound):
        artifacts.get(ME, "model", job.model.id)
    assert job.calibration is not None
    keys = store.delete(ME, job.id)
    assert keys is not None
    assert set(keys) == {job.model.key, job.calibration.key}


def test_an_uploaded_model_is_inspected(artifacts: ArtifactStore, leases: Leases) -> None:
    created = artifacts.create(ME, "model", a_file())
    assert created.artifact.inspection is None
    assert created.inspect_job is not None
    assert leases.queued(5) == [created.inspect_job]
    job = leases.claim(created.inspect_job, holder="x")
    assert job is not None
    assert leases.publish_inspection(job, {"opset": 17}).accepted
    seen = artifacts.get(ME, "model", created.artifact.id)
    assert (seen.inspection, seen.inspection_error) == ({"opset": 17}, None)
    assert leases.claim(job.id, holder="x") is None


def test_a_failed_inspection_says_why(artifacts: ArtifactStore, leases: Leases) -> None:
    created = artifacts.create(ME, "model", a_file())
    job = leases.claim(str(created.inspect_job), holder="x")
    assert job is not None
    fail(leases, job)
    error = artifacts.get(ME, "model", created.artifact.id).inspection_error
    assert error is not None
    assert (error["code"], error["detail"]) == ("invalid_model", "no model")


def test_inspections_are_no_jobs_of_the_user(
    store: JobStore, artifacts: ArtifactStore, leases: Leases
) -> None:
    created = artifacts.create(ME, "model", a_file())
    assert store.page(ME).items == []
    with pytest.raises(NotFound):
        store.get(ME, str(created.inspect_job))
    assert artifacts.delete(ME, "model", created.artifact.id) == (created.artifact.key,)
    assert leases.queued(5) == []


def test_the_longest_waiting_job_is_enqueued_first(store: JobStore, leases: Leases) -> None:
    made = [store.create(a_job()).job.id for _ in range(3)]
    assert leases.queued(2) == made[:2]


def sized_job(store: JobStore, size: int, owner: str = ME) -> str:
    file = replace(a_file(uuid4().hex[:8]), bytes=size)
    return store.create(a_job(owner, model=file)).job.id


def test_small_jobs_go_before_large_ones_that_came_earlier(
    store: JobStore, leases: Leases
) -> None:
    large, small = sized_job(store, 1 << 30), sized_job(store, 1 << 20)
    assert leases.queued(5) == [small, large]
    assert (leases.size_class(large), leases.size_class(small)) == ("large", "small")
    claimed = [leases.claim_next(holder="x") for _ in range(3)]
    assert [job and job.id for job in claimed] == [small, large, None]


def test_a_large_job_that_waited_for_ten_minutes_goes_before_small_ones_that_came_later(
    store: JobStore, leases: Leases, database: Database
) -> None:
    large, small = sized_job(store, 1 << 30), sized_job(store, 1 << 20)
    with database.write() as connection:
        connection.execute(update(jobs).values(queued_at=jobs.c.queued_at - 601))
    late = sized_job(store, 1 << 20)
    assert leases.queued(5) == [large, small, late]


def test_a_worker_takes_the_classes_that_it_was_told(store: JobStore, leases: Leases) -> None:
    large, small = sized_job(store, 1 << 30), sized_job(store, 1 << 20)
    assert leases.queued(5, classes=["large"]) == [large]
    job = leases.claim_next(holder="x", classes=["small"])
    assert job is not None
    assert job.id == small
    assert leases.claim_next(holder="x", classes=["small"]) is None


def test_a_job_that_is_next_goes_to_one_of_many_that_ask(
    store: JobStore, leases: Leases
) -> None:
    made = {store.create(a_job()).job.id for _ in range(4)}
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda _: leases.claim_next(holder="x"), range(12)))
    assert sorted(job.id for job in claims if job) == sorted(made)


def test_workers_are_known_while_they_report(database: Database) -> None:
    workers = WorkerRegister(database)
    known = {"host": "here", "slots": 2, "sandbox": {"seccomp": "ok"}}
    assert not workers.report("w1", **known, classes=("small",), silent_seconds=5)  # type: ignore[arg-type]
    assert not workers.report("w1", **known, classes=("small",), silent_seconds=5)  # type: ignore[arg-type]
    workers.report("w2", host="there", slots=1, sandbox={})
    first, second = workers.alive()
    assert (first.id, first.slots, first.classes) == ("w1", 2, ("small",))
    assert first.last_claim_try is not None
    assert second.last_claim_try is None
    with database.write() as connection:
        connection.execute(text("UPDATE workers SET seen_at = seen_at - 60 WHERE id = 'w1'"))
    workers.sign_off("w2")
    assert workers.alive() == []


def test_figures_tell_of_the_queue_and_of_what_ended(
    store: JobStore, leases: Leases, database: Database
) -> None:
    figures = Figures(database, small_bytes=1 << 26)
    assert (figures.queue(), figures.endings(), figures.stage_seconds()) == ({}, {}, {})
    for size in (1 << 20, 1 << 20, 1 << 30):
        sized_job(store, size)
    publish(leases, claimed(store, leases))
    failed = claimed(store, leases)
    leases.progress(failed, stage="measure", share=0.5, message="")
    leases.fail(failed, Failure(code="out_of_memory", detail="too large"))
    queue = figures.queue()
    assert {name: found.depth for name, found in queue.items()} == {"small": 2, "large": 1}
    assert all(found.oldest_seconds >= 0 for found in queue.values())
    assert figures.endings() == {"published": 1, "out_of_memory": 1}
    assert set(figures.stage_seconds()) == {"convert", "measure"}


def test_the_memory_of_children_is_told_of_jobs_that_ended(
    store: JobStore, leases: Leases, database: Database
) -> None:
    figures = Figures(database, small_bytes=1 << 26)
    for size in (100, 300):
        store.create(a_job())
        job = leases.claim_next(holder="h")
        assert job is not None
        leases.note_memory(job, size)
        assert figures.child_memory().get("max") in (None, 100)
        leases.canceled(job)
    assert figures.child_memory() == {"mean": 200, "max": 300}


def test_a_worker_learns_at_its_report_that_it_is_to_drain(database: Database) -> None:
    workers = WorkerRegister(database)
    known = {"slots": 1, "sandbox": {}}
    for name in ("a", "b"):
        workers.report(name, host=f"host-{name}", **known)  # type: ignore[arg-type]
    assert workers.drain(["host-b", "nobody"]) == 1
    assert not workers.report("a", host="host-a", **known)  # type: ignore[arg-type]
    assert workers.report("b", host="host-b", **known)  # type: ignore[arg-type]
    assert workers.drain(None) == 2


def test_readers_never_wait_for_a_writer(store: JobStore, database: Database) -> None:
    job = store.create(a_job()).job
    with database.write() as connection:
        connection.execute(update(jobs).values(message="not yet committed"))
        found: list[Job] = []
        reader = threading.Thread(target=lambda: found.append(store.get(ME, job.id)))
        reader.start()
        reader.join(timeout=5)
        assert [job.message for job in found] == [""]


def test_texts_that_a_database_refuses_are_kept_without_the_offence(store: JobStore) -> None:
    job = store.create(a_job(name="a\0b\ud800c", model=a_file(name="\0.onnx"))).job
    assert store.get(ME, job.id).name.startswith("a")


def test_the_migrations_make_the_tables_that_the_code_uses(url: str) -> None:
    migrate(url)
    with connected(url) as database, database.write() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_two_processes_can_migrate_at_the_same_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'race.db'}"
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: migrate(url), range(4)))
    with connected(url) as database:
        assert JobStore(database).page(ME).items == []


def test_a_key_is_found_by_its_text_only_while_it_lives(database: Database) -> None:
    keys = KeyStore(database)
    assert not keys.were_made()
    key, text = keys.create(ME, "laptop", scopes=["write", "read"])
    assert keys.find(text) == key
    assert key.scopes == {"read", "write"}
    assert keys.find(text.upper()) is None
    assert keys.find(f"mp_{key.id}_" + "a" * 43) is None
    assert keys.find(keys.create(ME, "old", lifetime_seconds=-1)[1]) is None
    keys.used(key.id)
    session = keys.open_session(key, seconds=60)
    found = keys.of_session(session)
    assert found is not None
    assert (found.id, found.last_used_at is not None) == (key.id, True)
    assert keys.of_session(keys.open_session(key, seconds=-1)) is None
    keys.revoke(key.id)
    assert keys.find(text) is None
    assert keys.of_session(session) is None
    assert (keys.were_made(), keys.any_live()) == (True, False)
    with pytest.raises(NotFound):
        keys.revoke(key.id)
