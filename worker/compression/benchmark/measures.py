"""What is reported of how fast a result is."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

LatencyVerdict = Literal["faster", "slower", "equal", "unreliable"]


class Percentiles(BaseModel):
    """Milliseconds of one inference."""

    model_config = ConfigDict(frozen=True)

    p50: float
    p90: float
    p99: float


class Latency(BaseModel):
    """Original against result, interleaved. `speedup` > 1 is faster; `interval` holds 95 %."""

    model_config = ConfigDict(frozen=True)

    shapes: dict[str, list[int]]
    threads: int
    rounds: int
    before: Percentiles
    after: Percentiles
    speedup: float
    interval: tuple[float, float]
    verdict: LatencyVerdict
