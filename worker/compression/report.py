"""What a compression did, as strict JSON: the proof that travels with the model."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from worker.compression.benchmark import Latency
from worker.compression.errors import CompressionWarning
from worker.compression.fidelity import Accuracy, Fidelity
from worker.compression.preflight import Preflight
from worker.compression.recipe import Goal, Recipe

Outcome = Literal[
    "better", "not_better", "as_asked", "as_asked_but_slower", "as_asked_but_worse",
    "not_verified", "not_measured_here",
]  # fmt: skip


class Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


class Verdict(Part):
    """The outcome in words, and the loss that it rests on: worst of all outputs."""

    outcome: Outcome
    sentence: str
    drop: float | None = None
    sqnr_db: float | None = None


class Warned(Part):
    """Something the user should know; `code` is stable."""

    code: str
    message: str


class Size(Part):
    """One side of before and after. Bytes include external data; `ops` counts by type."""

    bytes: int
    compressed_bytes: int = Field(description="zstd, level 3")
    parameters: int
    nonzero_parameters: int
    macs: int | None
    peak_memory_bytes: int | None
    ops: dict[str, int]


class Step(Part):
    """One pass and what it changed. `bytes` is the size after it."""

    pass_: str = Field(alias="pass")
    seconds: float
    bytes: int
    fidelity: Fidelity | None
    latency: Latency | None
    warnings: list[Warned]


class LayerCost(Part):
    """A layer as ONNX Runtime runs it: kernel, weight bytes, milliseconds by its profile."""

    kernel: str | None
    bytes: int
    ms: float | None


class Layer(Part):
    """Blame and price of one layer of the original. `after` is null where it is gone."""

    name: str
    op: str
    before: LayerCost
    after: LayerCost | None
    precision: str
    sparsity: float
    channels: tuple[int, int] | None = Field(description="output channels before and after")
    sqnr_db: float | None = Field(
        description="signal over the error that this layer alone adds; null where it adds "
        "none, and where it cannot be told from its neighbours"
    )
    saved_ms: float | None
    reason: str | None


class Saturated(Part):
    """Outputs of a layer in which two products together exceed 16 bits."""

    layer: str
    saturated: int
    outputs: int


class Portability(Part):
    """Whether x86 CPUs without VNNI give the same result, and how that is known.

    There, pairs of products of uint8 and int8 are added in 16 bits, which saturate.
    """

    same: bool | None = Field(description="null where it could not be seen")
    basis: Literal["weights", "samples", "unseen"] = Field(
        description="weights: no input can saturate; samples: simulated, exactly"
    )
    samples: int
    layers: list[Saturated] = Field(description="those simulated, worst first")
    sentence: str


class Candidate(Part):
    """One thing that the search tried, with the explicit recipe that makes it again."""

    name: str
    recipe: Recipe
    bytes: int | None
    latency_ms: float | None
    speedup: float | None
    drop: float | None
    sqnr_db: float | None
    within_bound: bool
    on_front: bool
    chosen: bool
    reason: str
    file: str | None


class Environment(Part):
    cpu: str
    flags: list[str]
    cores: int
    versions: dict[str, str]


class Reproduce(Part):
    """`recipe`, run by hand on the same data and versions, gives the same weights."""

    recipe: Recipe
    seed: int
    sha256: dict[str, str]


class Model(Part):
    name: str
    format: str
    bytes: int
    sha256: str


class Report(Part):
    model: Model
    verdict: Verdict
    goal: Goal
    before: Size
    after: Size
    latency: list[Latency]
    fidelity: Fidelity | None
    accuracy: Accuracy | None
    steps: list[Step]
    layers: list[Layer]
    candidates: list[Candidate]
    warnings: list[Warned]
    environment: Environment
    reproduce: Reproduce
    snippet: str
    preflight: Preflight | None = Field(default=None, description="what was expected")
    portability: Portability | None = Field(
        default=None, description="int8 results on CPUs without VNNI; null without int8"
    )
    extra: dict[str, Any] = Field(
        default={}, description="what a method adds: curves, kept channels"
    )


@contextmanager
def listening() -> Iterator[Callable[[], list[Warned]]]:
    """Record the warnings meant for the user; call what is yielded for those heard so far.

    What third parties warn about is dropped: it names their code, not the user's model.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")

        def heard() -> list[Warned]:
            ours = [
                one.message for one in caught if isinstance(one.message, CompressionWarning)
            ]
            said = [Warned(code=one.code, message=one.message) for one in ours]
            return list({one.message: one for one in said}.values())

        yield heard
