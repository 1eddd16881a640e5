"""`python -m worker.jobs`: create the schema of the configured database, or upgrade it."""

from worker.folders import make_private
from worker.jobs.migrate import migrate
from worker.settings import Settings

settings = Settings()
if not settings.database_url:
    make_private(settings.data_dir)
migrate(settings.database)
