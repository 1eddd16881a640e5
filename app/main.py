"""The web application: routes, pages, and what guards them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from app import api, docs, errors, login, pages, tus
from app.access import Access
from app.admission import Admission
from app.metrics import Metrics
from app.openapi import describe
from app.rates import Rate
from app.schemas import Problem
from app.security import Guard, allowed_hosts
from worker.services import Services, build_services
from worker.settings import Settings
from worker.tracing import tracer_provider

STATIC = Path(__file__).parent / "static"
SWEEP_S = 600

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application over the services that the settings name.

    Without arguments, as uvicorn's `--factory` calls it, the environment has the settings.
    """
    settings = settings or Settings()
    services = build_services(settings)
    app = _bare(settings, services)
    metrics = _state(app, settings, services)
    errors.install(app, outages=services.objects.outages)
    app.include_router(api.router, responses={"4XX": {"model": Problem}})
    for router in (docs.router, pages.router, login.router):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_middleware(
        Guard,
        allowed_hosts=allowed_hosts(settings),
        on_answer=metrics.count,
        patience=settings.upload_stall_seconds,
    )
    return app


def _bare(settings: Settings, services: Services) -> FastAPI:
    """An application without routes: its life, its description, its traces."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeper = asyncio.create_task(_sweep(services))
        yield
        sweeper.cancel()
        services.close()

    traces = tracer_provider(settings.traces_endpoint, part="web", at_once=False)
    app = FastAPI(
        lifespan=lifespan,
        title="modelpress",
        description="Compress a trained model, with proof that it still works.",
        version="1",
        docs_url=None,  # FastAPI's pages load scripts from elsewhere
        redoc_url=None,
        telemetry={
            "tracer_provider": traces,
            "tracing": traces is not None,
            "operation_spans": False,
            "metrics": False,
            "logs": False,
        },
    )
    app.openapi = partial(describe, app)  # type: ignore[method-assign] # as FastAPI documents
    return app


def _state(app: FastAPI, settings: Settings, services: Services) -> Metrics:
    """What the routes find in `app.state`; the counters among it."""
    app.state.services = services
    app.state.metrics = Metrics(services)
    app.state.access = Access(services)
    app.state.requests = Rate(settings.max_owner_requests_per_second, seconds=1)
    app.state.admission = Admission(settings)
    metrics: Metrics = app.state.metrics
    return metrics


async def _sweep(services: Services) -> None:
    """Remove resumable uploads whose time is over, for as long as this process lives."""
    while True:
        try:
            await run_in_threadpool(tus.sweep, services)
        except Exception as error:  # the database is away: the next time will do
            logger.warning("sweeping uploads failed: %s", error)
        await asyncio.sleep(SWEEP_S)
