"""What a job may use, from the settings and its own size."""

from dataclasses import replace

from worker.isolation import Limits, default_limits
from worker.jobs import Job
from worker.settings import Settings

_INSPECTION_SECONDS = 600


def limits_for(job: Job, settings: Settings) -> Limits:
    """Limits of one attempt; a setting of 0 leaves the choice to the size of the files."""
    wall = settings.max_job_seconds
    if job.kind == "inspect":
        wall = min(wall, _INSPECTION_SECONDS)
    models = job.model.bytes + (job.partner.bytes if job.partner is not None else 0)
    limits = default_limits(models, wall_seconds=wall)
    samples = [data.bytes for data in (job.calibration, job.evaluation) if data is not None]
    # Arrays are unpacked into the folder, and the original's outputs are kept beside them.
    disk = settings.max_job_disk_bytes or limits.disk_bytes + 4 * sum(samples)
    memory = settings.max_job_memory_bytes or limits.memory_bytes
    return replace(limits, disk_bytes=disk, memory_bytes=memory)
