"""`python -m worker.jobs`: create the schema of the configured database, or upgrade it."""

from worker.jobs.migrate import migrate
from worker.settings import Settings

migrate(Settings().database)
