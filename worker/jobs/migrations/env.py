"""Alembic's entry point. It runs on the connection that `worker.jobs.migrate` opened."""

from alembic import context

from worker.jobs.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
context.run_migrations()
