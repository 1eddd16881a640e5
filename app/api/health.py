"""Is the process up, can jobs run, and what do the counters say."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.access import Access, Operator
from app.dependencies import InServices
from app.errors import CODES, Refusal, problem
from app.metrics import Metrics
from worker.services import Services

router = APIRouter(tags=["health"])


async def _sees_all(request: Request) -> bool:
    """Whether an operator asks: hosts and their kernels concern nobody else."""
    access: Access = request.app.state.access
    try:
        return "admin" in (await access.identify(request)).scopes
    except Refusal:
        return False


SeesAll = Annotated[bool, Depends(_sees_all)]


@router.get("/healthz")
async def get_health() -> dict[str, str]:
    """Whether this process answers."""
    return {"status": "up"}


@router.get("/readyz")
def get_readiness(services: InServices, sees_all: SeesAll) -> Response:
    """Whether a job that comes now would run: each part with `ok` or what is wrong with it."""
    checks = {
        "database": _check(services.jobs.ping),
        "storage": _check(services.objects.ping),
        "broker": _check(services.publisher.ping),
    }
    workers = _workers(services) if checks["database"] == "ok" else []
    checks["worker"] = "ok" if workers else "no worker has reported in the last 30 s"
    state: dict[str, Any] = {"checks": checks} | ({"workers": workers} if sees_all else {})
    wrong = [f"{name}: {said}" for name, said in checks.items() if said != "ok"]
    if not wrong:
        return JSONResponse({"status": "ready"} | state)
    code = "not_serving"
    body = problem(code, "; ".join(wrong), status=CODES[code], **state)
    return JSONResponse(body, CODES[code], media_type="application/problem+json")


@router.get("/metrics", response_class=Response)
def get_metrics(request: Request, operator: Operator) -> Response:
    """Counters and gauges for Prometheus."""
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _check(ping: Callable[[], None]) -> str:
    try:
        ping()
    except Exception as error:
        return type(error).__name__  # its message may name hosts and paths
    return "ok"


def _workers(services: Services) -> list[dict[str, Any]]:
    return [
        {
            "host": worker.host,
            "slots": worker.slots,
            "sandbox": worker.sandbox,
            "seen_at": worker.seen_at.isoformat(),
        }
        for worker in services.workers.alive()
    ]
