"""Resumable uploads by tus 1.0, at /v1/uploads."""

from time import time

from app.tus.growing import growth_of
from app.tus.routes import router
from worker.services import Services

__all__ = ["router", "sweep"]


def sweep(services: Services) -> None:
    """Remove what was not completed in time; called every few minutes."""
    growth = growth_of(services)
    for upload_id in services.uploads.overdue():
        growth.remove(upload_id)
        services.discard(services.uploads.forget(upload_id))
    growth.sweep(before=time() - services.settings.upload_hours * 3600)
