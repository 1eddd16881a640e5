"""What is reported of how close a result is to the original."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

OutputKind = Literal["class", "value", "embedding", "state"]
Interval = tuple[float, float]


class WorstChannel(BaseModel):
    """The signal-carrying channel that lost most: `axis` and `index` say which."""

    model_config = ConfigDict(frozen=True)

    axis: int
    index: int
    sqnr_db: float | None


class OutputFidelity(BaseModel):
    """One output against the original. `sqnr_db` is null where it is `identical`."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: OutputKind
    identical: bool
    sqnr_db: float | None
    worst_channel: WorstChannel | None
    cosine: float | None
    max_abs: float | None
    argmax_agreement: float | None
    drop: float | None
    interval: Interval | None = Field(description="95 % interval of the drop")
    answers: int | None = Field(
        default=None, description="answers that were counted, of a class output"
    )
    likely_drop: float | None = Field(
        default=None, description="share of answers that errors of this size would change"
    )


class Fidelity(BaseModel):
    """All outputs over `samples` held-out samples; `source` says where these came from."""

    model_config = ConfigDict(frozen=True)

    samples: int
    source: Literal["evaluation", "calibration", "synthetic"]
    outputs: list[OutputFidelity]


class Accuracy(BaseModel):
    """The task metric. `interval`: 95 %, of the relative drop, paired."""

    model_config = ConfigDict(frozen=True)

    metric: str
    before: float
    after: float
    drop: float
    interval: Interval
    samples: int
    source: Literal["labels", "own", "decoding"] = Field(
        default="labels",
        description="labels of the data, the user's own metric, or tokens decoded as before",
    )
