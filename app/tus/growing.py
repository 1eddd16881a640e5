"""Which way uploads grow: in files where the store is a folder, else as objects."""

from app.tus.files import FileGrowth
from app.tus.growth import Growth
from app.tus.parts import PartGrowth
from worker.objects import LocalStore
from worker.services import Services


def growth_of(services: Services) -> Growth:
    if isinstance(services.objects, LocalStore):
        return FileGrowth(services.objects)
    return PartGrowth(services)
