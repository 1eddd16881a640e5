"""The JSON routes of /v1, a module for each resource, and those that watch over the service."""

from fastapi import APIRouter

from app.api import health, jobs, recipes
from app.api.artifacts import artifact_router

router = APIRouter()
router.include_router(jobs.router)
router.include_router(artifact_router("model"))
router.include_router(artifact_router("dataset"))
router.include_router(recipes.router)
router.include_router(health.router)
