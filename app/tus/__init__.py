"""Resumable uploads by tus 1.0, at /v1/uploads."""

from app.tus.partial import sweep
from app.tus.routes import router

__all__ = ["router", "sweep"]
