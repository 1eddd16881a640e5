"""Where everything that can be set comes from: the environment, `MODELPRESS_*`."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

GIB = 1024**3


def _default_data_dir() -> Path:
    home = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(home) / "modelpress"


class Settings(BaseSettings):
    """Frozen; every field is an environment variable with the prefix `MODELPRESS_`."""

    model_config = SettingsConfigDict(
        env_prefix="MODELPRESS_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description="Folder of the embedded database, files, broker and scratch space.",
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL; empty is SQLite in the data folder."
    )
    broker_url: str = Field(
        default="", description="redis:// or rediss://; empty is folders in the data folder."
    )
    storage_url: str = Field(
        default="",
        description="s3://bucket/prefix or a folder; empty is a folder in the data folder.",
    )

    host: str = Field(default="127.0.0.1", description="Address that the web server binds.")
    port: int = Field(
        default=8000, ge=0, le=65_535, description="Port of the web server; 0 takes a free one."
    )
    allow_open: bool = Field(
        default=False, description="Allow to bind beyond loopback although there are no keys."
    )
    allowed_hosts: str = Field(
        default="",
        description="Further names the web server answers to, with commas between; * is any.",
    )

    https: bool = Field(
        default=False,
        description="Users come by https, through a proxy: cookies are marked Secure.",
    )
    traces_endpoint: str | None = Field(
        default=None,
        description="Where OpenTelemetry traces go, by OTLP over HTTP; needs the extra otel.",
    )
    session_seconds: int = Field(
        default=12 * 3600, ge=60, description="How long a browser stays signed in."
    )

    max_model_bytes: int = Field(
        default=8 * GIB, gt=0, description="Largest model upload, in bytes."
    )
    max_dataset_bytes: int = Field(
        default=8 * GIB, gt=0, description="Largest data set upload, in bytes."
    )
    free_disk_reserve_bytes: int = Field(
        default=1 * GIB, ge=0, description="Uploads that would leave less free are refused."
    )

    upload_stall_seconds: float = Field(
        default=60, gt=0, description="An upload that sends nothing for so long is given up."
    )
    max_uploads: int = Field(
        default=32, ge=1, description="Uploads that one web process takes at a time."
    )
    max_owner_uploads: int = Field(
        default=8, ge=1, description="Uploads that the owner of a key may send at a time."
    )
    max_owner_uploads_per_minute: int = Field(
        default=600, ge=0, description="Uploads that the owner of a key may begin; 0 is any."
    )
    max_owner_requests_per_second: int = Field(
        default=2000, ge=0, description="Requests of the owner of a key; 0 is any number."
    )
    max_owner_bytes: int = Field(
        default=100 * GIB,
        ge=0,
        description="Bytes that the owner of a key may keep; 0 is any number.",
    )
    max_owner_queued_jobs: int = Field(
        default=1000, ge=0, description="Waiting jobs of the owner of a key; 0 is any number."
    )
    max_owner_jobs_per_day: int = Field(
        default=10_000, ge=0, description="Jobs a day of the owner of a key; 0 is any number."
    )
    max_owner_cpu_seconds_per_day: int = Field(
        default=0,
        ge=0,
        description="Processor seconds a day of the owner of a key; 0 is any number.",
    )
    max_queued_jobs: int = Field(
        default=10_000, ge=0, description="Waiting jobs of all owners; 0 is any number."
    )

    keep_uploads_days: float = Field(
        default=0, ge=0, description="Days after which unused uploads go; 0 keeps them."
    )
    keep_results_days: float = Field(
        default=0, ge=0, description="Days after which the files of a result go; 0 keeps them."
    )
    keep_jobs_days: float = Field(
        default=0, ge=0, description="Days after which ended jobs go; 0 keeps them."
    )
    upload_hours: float = Field(
        default=24, gt=0, description="How long a resumable upload may take."
    )

    concurrency: int = Field(
        default=1, ge=1, le=256, description="Jobs that a worker runs at a time."
    )
    classes: str = Field(
        default="small,large",
        pattern="^(small|large|small,large|large,small)$",
        description="Size classes of the jobs that a worker takes.",
    )
    small_job_bytes: int = Field(
        default=64 * 1024**2,
        ge=0,
        description="Jobs with at most so much model and data are small.",
    )
    sandbox: Literal["auto", "required", "off"] = Field(
        default="auto", description="What a job does where a layer of the sandbox is missing."
    )
    max_job_seconds: int = Field(
        default=3600, ge=1, description="Wall-clock limit of a job, in seconds."
    )
    max_job_memory_bytes: int = Field(
        default=0,
        ge=0,
        description="Memory limit of a job; 0 is min(3/4 of the RAM, 6 x the model + 2 GiB).",
    )
    max_job_disk_bytes: int = Field(
        default=0,
        ge=0,
        description="What a job may write; 0 is 16 x the model + 4 x the samples + 4 GiB.",
    )

    cache_bytes: int = Field(
        default=5 << 30,
        ge=0,
        description="Room on a worker's disk for what searches found out, so that another goal "
        "on the same model is cheap; 0 keeps nothing.",
    )
    measuring_lock: Path | None = Field(
        default=None,
        description="File whose lock keeps a host quiet; empty is one in the temporary folder.",
    )

    lease_seconds: float = Field(
        default=30,
        gt=0,
        description="A running job whose lease ran out is taken from its worker.",
    )
    renew_seconds: float = Field(
        default=10, gt=0, description="How often a worker renews the lease of its job."
    )
    reap_seconds: float = Field(
        default=10, gt=0, description="How often a worker looks for lost jobs."
    )
    requeue_seconds: float = Field(
        default=15, gt=0, description="How often a free worker enqueues waiting jobs again."
    )
    direct_seconds: float = Field(
        default=15,
        gt=0,
        description="A job that waits so long beside a free slot starts without the broker.",
    )
    deaf_seconds: float = Field(
        default=60,
        gt=0,
        description="A worker that hears nothing for so long of jobs that wait starts again.",
    )
    max_losses: int = Field(
        default=3,
        ge=1,
        description="Workers a job may lose before it has failed (worker_lost).",
    )
    max_kills: int = Field(
        default=2,
        ge=1,
        description="Attempts of a job whose process is killed from outside (killed).",
    )
    max_restarts: int = Field(
        default=5,
        ge=1,
        description="Restarts of a process within a minute after which serve gives up.",
    )
    stop_grace_seconds: float = Field(
        default=30,
        ge=0,
        description="How long a stopping worker lets its job go on before it hands it back.",
    )

    log_format: Literal["text", "json"] = Field(
        default="text", description="Log lines for people, or one JSON object a line."
    )

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, given: Path) -> Path:
        return given.expanduser().absolute()

    @property
    def database(self) -> str:
        return self.database_url or f"sqlite:///{self.data_dir / 'modelpress.db'}"

    @property
    def storage(self) -> str:
        return self.storage_url or str(self.data_dir / "objects")

    @property
    def size_classes(self) -> tuple[str, ...]:
        return tuple(self.classes.split(","))

    @property
    def scratch(self) -> Path:
        """Folder of the jobs that run on this host."""
        return self.data_dir / "scratch"

    @property
    def pulse(self) -> Path:
        """File that a worker of this host touches for as long as it lives."""
        return self.data_dir / "worker.pulse"

    @property
    def cache(self) -> Path:
        """Folder of what searches on this host found out."""
        return self.data_dir / "cache"

    def environment(self) -> dict[str, str]:
        """Give the same settings as environment variables, for processes of our own."""
        return {
            f"MODELPRESS_{name.upper()}": "" if value is None else str(value)
            for name, value in self.model_dump(mode="json").items()
        }
