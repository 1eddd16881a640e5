"""Quotas, turns and retention, over SQLite and a real PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from tests.worker.test_jobs import ME, OTHER, a_file, a_job, claimed, publish
from worker.jobs import (
    ArtifactStore,
    Database,
    FilesGone,
    JobStatus,
    JobStore,
    Keeping,
    Leases,
    NotFound,
    QueueFull,
    Quota,
    QuotaExceeded,
    Retention,
    StorageQuotaExceeded,
    UsageStore,
)
from worker.jobs.database import now
from worker.jobs.tables import artifacts as artifact_rows
from worker.jobs.tables import jobs

DAY = 24 * 3600


def test_only_so_many_jobs_may_wait_and_a_retry_counts(store: JobStore, leases: Leases) -> None:
    quota = Quota(queued_jobs=2)
    first = store.create(a_job(), quota=quota).job
    store.create(a_job(), quota=quota)
    with pytest.raises(QuotaExceeded):
        store.create(a_job(), quota=quota)
    store.create(a_job(owner=OTHER), quota=quota)
    store.cancel(ME, first.id)
    store.create(a_job(), quota=quota)
    with pytest.raises(QuotaExceeded):
        store.retry(ME, first.id, quota=quota)
    assert store.get(ME, first.id).status is JobStatus.CANCELED
    with pytest.raises(QueueFull) as full:
        store.create(a_job(), quota=Quota(all_queued_jobs=3))
    assert full.value.retry_after


def test_deleted_jobs_still_count_for_the_day(store: JobStore, database: Database) -> None:
    quota = Quota(jobs_per_day=2)
    for _ in range(2):
        store.delete(ME, store.create(a_job(), quota=quota).job.id)
    with pytest.raises(QuotaExceeded) as refused:
        store.create(a_job(), quota=quota)
    assert 0 < (refused.value.retry_after or 0) <= DAY
    assert UsageStore(database).of(ME).jobs_today == 2


def test_parallel_requests_never_pass_a_quota(store: JobStore) -> None:
    def send(_: int) -> bool:
        try:
            store.create(a_job(), quota=Quota(queued_jobs=5, jobs_per_day=7))
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(send, range(20))) == 5


def test_spent_processor_time_refuses_the_next_job(store: JobStore, database: Database) -> None:
    usage, quota = UsageStore(database), Quota(cpu_seconds_per_day=10)
    usage.spend(ME, 6.0)
    store.create(a_job(), quota=quota)
    usage.spend(ME, 5.0)
    assert usage.of(ME).cpu_seconds_today == 11
    with pytest.raises(QuotaExceeded):
        store.create(a_job(), quota=quota)
    store.create(a_job(owner=OTHER), quota=quota)


def test_room_is_counted_by_content_with_results(
    store: JobStore, leases: Leases, artifacts: ArtifactStore, database: Database
) -> None:
    usage, quota = UsageStore(database), Quota(stored_bytes=20)
    artifacts.create(ME, "model", a_file("a"), quota=quota)
    artifacts.create(ME, "model", a_file("a"), quota=quota)
    assert usage.stored_bytes(ME) == 9
    publish(leases, claimed(store, leases))
    assert usage.stored_bytes(ME) == 9 + 9 + 3
    with pytest.raises(StorageQuotaExceeded):
        artifacts.create(ME, "model", a_file("b"), quota=quota)
    with pytest.raises(StorageQuotaExceeded):
        store.create(a_job(model=a_file("c")), quota=quota)
    assert usage.stored_bytes(ME) == 21
    artifacts.create(OTHER, "model", a_file("b"), quota=quota)


def test_owners_take_turns(store: JobStore, leases: Leases) -> None:
    for owner in (ME, ME, ME, ME, OTHER, "third", OTHER):
        store.create(a_job(owner=owner))
    turns = []
    while (job := leases.claim_next(holder="x")) is not None:
        turns.append(job.owner_id)
    assert turns == [ME, OTHER, "third", ME, OTHER, ME, ME]


def let_pass(database: Database, days: float) -> None:
    with database.write() as connection:
        for table, column in ((jobs, "finished_at"), (artifact_rows, "created_at")):
            connection.execute(update(table).values({column: now() - days * DAY}))


def test_nothing_goes_unless_it_is_asked_for(
    store: JobStore, leases: Leases, database: Database
) -> None:
    publish(leases, claimed(store, leases))
    let_pass(database, 1000)
    assert Retention(database).due(Keeping()) == []


def test_each_thing_goes_after_its_own_time(
    store: JobStore, leases: Leases, artifacts: ArtifactStore, database: Database
) -> None:
    retention = Retention(database)
    done = claimed(store, leases)
    publish(leases, done)
    needed = artifacts.create(ME, "model", a_file("needed")).artifact
    waiting = store.create(a_job(model=needed.id)).job
    spare = artifacts.create(ME, "dataset", a_file("spare")).artifact
    let_pass(database, 10)

    assert retention.due(Keeping(uploads_days=11, results_days=11, jobs_days=11)) == []
    due = retention.due(Keeping(uploads_days=9, results_days=9))
    assert {(one.what, one.id) for one in due} == {
        ("result", done.id), ("upload", spare.id), ("upload", done.model.id),
    }  # fmt: skip
    keys = {key for one in due for key in retention.drop(one)}
    assert keys == {"local/results/x", spare.key, done.model.key}
    assert store.get(ME, done.id).results == {}
    assert set(retention.referenced()) == {needed.key}

    (row,) = retention.due(Keeping(jobs_days=9))
    assert row.id == done.id
    retention.drop(row)
    with pytest.raises(NotFound):
        store.get(ME, done.id)
    assert store.get(ME, waiting.id).status is JobStatus.QUEUED


def test_a_job_whose_upload_expired_cannot_be_retried(
    store: JobStore, leases: Leases, database: Database
) -> None:
    job = store.create(a_job()).job
    store.cancel(ME, job.id)
    let_pass(database, 2)
    retention = Retention(database)
    for one in retention.due(Keeping(uploads_days=1)):
        retention.drop(one)
    with pytest.raises(FilesGone):
        store.retry(ME, job.id)
