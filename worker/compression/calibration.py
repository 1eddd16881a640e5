"""Representative inputs, read lazily: memory does not grow with their number."""

from pydantic import BaseModel, ConfigDict


class Images(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CalibrationSet:
    pass
