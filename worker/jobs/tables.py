"""The tables. Times are seconds since 1970 by the database's clock, so that both compare alike.

A change here needs a migration: tests compare the two.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    false,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Wording(TypeDecorator[str]):
    """Text from outside. Both databases refuse lone surrogates, and PostgreSQL a zero byte."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None:
            return None
        return value.replace("\0", "").encode(errors="replace").decode()


# A Python None in a JSON column is SQL's NULL, not JSON's null.
_OBJECT = JSON(none_as_null=True)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", Wording, nullable=False),
    Column("format", String(32), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("key", Text, nullable=False),
    Column("of_job", Boolean, nullable=False),
    Column("inspection", _OBJECT),
    Column("inspection_error", _OBJECT),
    Column("created_at", Double, nullable=False),
    Index("ix_artifacts_owner_id_sha256", "owner_id", "sha256"),
    Index("ix_artifacts_key", "key"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner_id", String(64), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("name", Wording, nullable=False),
    Column("status", String(16), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("progress", Double, nullable=False),
    Column("message", Wording, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("queued_at", Double, nullable=False),
    Column("started_at", Double),
    Column("finished_at", Double),
    # The ids are for looking up who uses an artifact; the objects are what the job knows of it.
    Column("model_id", String(36), nullable=False, index=True),
    Column("calibration_id", String(36), index=True),
    Column("evaluation_id", String(36), index=True),
    Column("partner_id", String(36), index=True),
    Column("model", _OBJECT, nullable=False),
    Column("calibration", _OBJECT),
    Column("evaluation", _OBJECT),
    Column("partner", _OBJECT),
    Column("inputs", _OBJECT),
    Column("recipe", _OBJECT, nullable=False),
    Column("work_bytes", BigInteger, nullable=False, server_default="0"),  # model and data
    Column("error", _OBJECT),
    Column("summary", _OBJECT),
    Column("warnings", _OBJECT, nullable=False),
    Column("sandbox", _OBJECT, nullable=False),
    Column("results", _OBJECT, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("delete_requested", Boolean, nullable=False),
    Column("lease_id", String(36)),
    Column("lease_until", Double),
    Column("lease_holder", Text),
    Column("idempotency_key", String(255)),
    Column("request_sha256", String(64)),
    Column("result_bytes", BigInteger, nullable=False, server_default="0"),
    Column("peak_memory_bytes", BigInteger),  # of the child of its last attempt
    Index("uq_jobs_owner_id_idempotency_key", "owner_id", "idempotency_key", unique=True),
    Index("ix_jobs_owner_id_id", "owner_id", "id"),
    Index("ix_jobs_owner_id_started_at", "owner_id", "started_at"),
    Index("ix_jobs_status_queued_at", "status", "queued_at"),
    Index(
        "ix_jobs_running",
        "lease_until",
        sqlite_where=text("status = 'running'"),
        postgresql_where=text("status = 'running'"),
    ),
)

job_events = Table(
    "job_events",
    metadata,
    Column("job_id", String(36), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("at", Double, nullable=False),
    Column("status", String(16), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("progress", Double, nullable=False),
    Column("message", Wording, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("cause", String(32), nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("host", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("sandbox", _OBJECT, nullable=False),
    Column("classes", Text, nullable=False, server_default=""),
    Column("last_claim_try", Double),  # when a message made it look for work
    Column("draining", Boolean, nullable=False, server_default=false()),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
)

# Rows stay after a key was revoked: that one existed is what closes the service to strangers.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(8), primary_key=True),
    Column("owner_id", String(64), nullable=False),
    Column("name", Wording, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("scopes", _OBJECT, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("last_used_at", Double),
)

sessions = Table(
    "sessions",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("key_id", String(8), nullable=False),
    Column("expires_at", Double, nullable=False),
)

# Resumable uploads. How much of one has arrived is told by its file, or by its parts.
uploads = Table(
    "uploads",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("owner_id", String(64), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("name", Wording, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("artifact_id", String(36)),
    Column("expires_at", Double, nullable=False),
)

# What has arrived of uploads, where the store is a bucket: each part is an object.
upload_parts = Table(
    "upload_parts",
    metadata,
    Column("upload_id", String(36), primary_key=True),
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    Column("bytes", BigInteger, nullable=False),
    Column("key", Text, nullable=False),
)

# What deleting a job does not give back.
usage = Table(
    "usage",
    metadata,
    Column("owner_id", String(64), primary_key=True),
    Column("day", Integer, primary_key=True),
    Column("jobs", Integer, nullable=False),
    Column("cpu_seconds", Double, nullable=False),
)
