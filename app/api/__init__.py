"""The JSON routes of /v1, a module for each resource, and those that watch over the service."""

from fastapi import APIRouter

from app.api.artifacts import artifact_router
from app.api.health import router as health_router
from app.api.jobs import router as jobs_router
from app.api.recipes import router as recipes_router
from app.tus import router as uploads_router

router = APIRouter()
router.include_router(jobs_router)
router.include_router(artifact_router("model"))
router.include_router(artifact_router("dataset"))
router.include_router(uploads_router)
router.include_router(recipes_router)
router.include_router(health_router)
