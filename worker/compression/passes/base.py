"""What every method is: its settings and one verb."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field

from worker.compression.calibration import CalibrationSet

FILES = "files"
"""Folder, in the working directory of a pass, of what is handed out beside the model."""

Cpu = Literal["auto", "x86-vnni", "x86-avx2", "arm64"]


class Target(BaseModel):
    """Where the result will run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu: Cpu = Field(
        default="auto", description="CPU type the result is made for; auto is this machine."
    )
    threads: int = Field(default=1, ge=1, le=256, description="Threads of one inference.")
    shapes: list[dict[str, list[int]]] = Field(
        default=[],
        description="Input shapes to time, by input name; empty takes those found in the data.",
    )


@dataclass(frozen=True)
class Context:
    """What a pass may use besides its settings and the model.

    `progress` takes a share (0..1) of this pass and a message; `measure` gives the peak memory
    in bytes of a fresh process that loads and runs the model file once, or None where that
    cannot be had. `source` is the file that the model was read from; with a `cache`, a pass may
    keep there what it learnt of that file, for others of its kind. Files that go to the user
    beside the model are left in `workdir / FILES`.
    """

    workdir: Path
    calibration: CalibrationSet
    target: Target
    seed: int
    progress: Callable[[float, str], None]
    measure: Callable[[Path], int | None]
    source: Path | None = None
    cache: MutableMapping[str, object] | None = None


class Pass(BaseModel, ABC):
    """One step from model to model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str

    def variants(self) -> "Sequence[Self]":
        """The settings one by one, where they ask for several results to compare."""
        return [self]

    def settled(self, extra: Mapping[str, object]) -> Self:
        """The settings that do the same again, where a clock had a say in what was done.

        `extra` is what this pass left in the report.
        """
        return self

    @abstractmethod
    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        """Change the model, which the pass owns, and return it.

        Raises:
            InvalidRecipe: a setting does not fit this model.
            PassFailed: the method could not be carried out.

        Issues a CompressionWarning for what the user should know.
        """
