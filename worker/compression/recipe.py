"""The recipe: what to do, towards which goal, for which target."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from worker.compression.calibration import IMAGE_PRESETS, Images
from worker.compression.errors import InvalidRecipe
from worker.compression.fidelity import OutputKind
from worker.compression.passes import (
    AnyPass,
    ChannelPruning,
    DynamicQuantization,
    GraphCleaning,
    MagnitudePruning,
    StaticQuantization,
    Target,
    WeightQuantization,
)


class Goal(BaseModel):
    """What the result is wanted for, and what it must keep."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    objective: Literal["latency", "size"] = Field(
        default="latency", description="What should get smaller."
    )
    max_drop: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Largest relative loss of the task metric, or share of changed answers.",
    )
    min_sqnr_db: float = Field(
        default=20,
        ge=0,
        le=200,
        description="Lowest SQNR, in dB, of the worst channel of a value output.",
    )
    max_bytes: int | None = Field(
        default=None, gt=0, description="Hard limit of the file size, in bytes."
    )
    max_latency_ms: float | None = Field(
        default=None, gt=0, description="Hard limit of the median latency, in ms."
    )
    outputs: dict[str, OutputKind] = Field(
        default={}, description="What each output is; inferred where absent."
    )
    time_budget_s: float = Field(
        default=240, ge=1, le=86_400, description="Seconds the search may take."
    )


def _kind_of_passes(value: Any) -> str:  # noqa: ANN401 - raw user input
    return "auto" if isinstance(value, str) else "list"


Passes = Annotated[
    Annotated[Literal["auto"], Tag("auto")]
    | Annotated[list[AnyPass], Field(min_length=1), Tag("list")],
    Discriminator(_kind_of_passes),
]


def _or_preset(schema: dict[str, Any]) -> None:
    """Where settings of images stand, a preset's name may stand too."""
    schema["anyOf"].insert(1, {"type": "string", "enum": list(IMAGE_PRESETS)})


class Recipe(BaseModel):
    """Passes in the order they are applied, or `auto`; with goal, target and seed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passes: Passes = Field(default="auto", description="auto, or the methods in order.")
    goal: Goal = Goal()
    target: Target = Target()
    images: Images | None = Field(
        default=None,
        description="How a zip of images becomes inputs: a preset's name, or settings.",
        json_schema_extra=_or_preset,
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of everything random.")

    @classmethod
    def parse(cls, given: "str | Mapping[str, Any] | Recipe | None") -> "Recipe":
        """Read a preset's name, JSON text, or an object.

        Raises:
            InvalidRecipe: with one entry in `errors` for each field that is wrong.
        """
        if given is None:
            return cls()
        if isinstance(given, Recipe):
            return given
        if isinstance(given, str):
            given = _from_text(given)
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise _invalid(error) from None


def _from_text(text: str) -> Any:  # noqa: ANN401 - whatever JSON holds; validated by the caller
    name = text.strip()
    if name in PRESETS:
        return PRESETS[name].model_dump()
    if not name.startswith("{"):
        raise InvalidRecipe(
            f"there is no recipe named {name[:60]!r}",
            hint=f"name one of {', '.join(PRESETS)}, or send a JSON object",
        )
    try:
        return json.loads(name)
    except (ValueError, RecursionError) as error:  # also a number of 5,000 digits, deep nesting
        raise InvalidRecipe(
            f"the recipe is not JSON: {error}",
            hint="send a preset's name or a JSON object",
        ) from None


def _invalid(error: ValidationError) -> InvalidRecipe:
    errors = [
        {
            "field": ".".join(str(part) for part in entry["loc"]) or "recipe",
            "message": entry["msg"],
        }
        for entry in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidRecipe(
        f"recipe field {first['field']}: {first['message']}{more}",
        hint="GET /v1/recipe-schema, or docs/recipe.md, lists every field",
        errors=errors,
    )


# Operators that dynamic_quantization leaves float.
STATIC_WEIGHTS = ["Conv", "ConvTranspose", "GRU", "RNN", "Gather", "Einsum"]

PRESETS: dict[str, Recipe] = {
    "auto": Recipe(),
    "int8": Recipe(passes=[GraphCleaning(), StaticQuantization()]),
    # Weights first: behind activations that are scaled as they come, every change looks large.
    "int8-dynamic": Recipe(
        passes=[GraphCleaning(), WeightQuantization(ops=STATIC_WEIGHTS), DynamicQuantization()]
    ),
    "prune-l1": Recipe(passes=[MagnitudePruning(amount=0.2)]),
    "prune-channels": Recipe(passes=[ChannelPruning(amount=0.3)]),
    "prune-curve": Recipe(passes=[ChannelPruning(amount=[0.1, 0.2, 0.3, 0.5])]),
    "smallest": Recipe(goal=Goal(objective="size")),
}
