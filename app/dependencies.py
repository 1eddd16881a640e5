"""What a route is given besides the request."""

from collections.abc import Collection
from typing import Annotated

from fastapi import Depends, Request

from app.submission import KINDS
from app.uploads import Accepts
from worker.services import Services


async def _services(request: Request) -> Services:  # a plain function would cost a thread hop
    services: Services = request.app.state.services
    return services


InServices = Annotated[Services, Depends(_services)]


def accepts_job(services: Services, owner_id: str, *, fields: Collection[str]) -> Accepts:
    """A form with the files of a job, and these text fields."""
    return Accepts(
        owner_id=owner_id,
        objects=services.objects,
        reserve_bytes=services.settings.free_disk_reserve_bytes,
        files={name: max_bytes(services, kind) for name, kind in KINDS.items()},
        fields=fields,
    )


def accepts_artifact(services: Services, owner_id: str, *, kind: str) -> Accepts:
    """A form, or a raw body, with one file."""
    return Accepts(
        owner_id=owner_id,
        objects=services.objects,
        reserve_bytes=services.settings.free_disk_reserve_bytes,
        files={"file": max_bytes(services, kind), kind: max_bytes(services, kind)},
        fields=("name",),
    )


def max_bytes(services: Services, kind: str) -> int:
    settings = services.settings
    return settings.max_model_bytes if kind == "model" else settings.max_dataset_bytes
