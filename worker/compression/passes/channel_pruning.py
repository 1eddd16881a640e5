"""Channel pruning: whole channels go, the rest is refitted, and the file really gets faster.

Groups of channels are found from the graph alone and each is proved on the upload; which go
is decided on calibration samples, and least squares makes up for them.
"""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import onnx_ir as ir
from pydantic import Field, model_validator

from worker.compression import graph
from worker.compression.calibration import CalibrationSet
from worker.compression.channels import (
    NEAR,
    WITHOUT_DATA,
    Allocation,
    Criterion,
    Of,
    Scored,
    Scoring,
    Shrinking,
    Shrunk,
    Steps,
    Survey,
    measured_speedup,
    steps,
    survey,
    time_layers,
)
from worker.compression.errors import CompressionWarning, InvalidRecipe
from worker.compression.passes.base import Context, Pass

# Fewer samples than this say little about what may go.
_FEW_SAMPLES = 16
_CLEANING_FEEDS = 4
_MOST_THREADS = 4
# Corrections after a first speed-up is measured.
_CORRECTIONS = 3
# Multiples of channels that kernels like: a block of AVX512, of AVX2, and the least for any.
_WIDE_BLOCK, _BLOCK, _LEAST_BLOCK = 16, 8, 4

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


@dataclass(frozen=True)
class _Work:
    """What carrying out a plan needs."""

    survey: Survey
    scored: Scored
    samples: CalibrationSet
    context: Context
    threads: int
    folder: Path
    refit: bool

    def shrink(self, lost: Sequence[int], first: float, last: float) -> Shrunk:
        shrinking = Shrinking(self.survey, self.scored, self.samples, self.folder, self.threads)
        return shrinking.run(
            lost,
            refit=self.refit,
            progress=lambda share: self.context.progress(
                first + share * (last - first), "refitting the layers that lost channels"
            ),
        )


class ChannelPruning(Pass):
    """Take whole channels out of the graph and refit what reads them; the model gets faster."""

    method: Literal["channel_pruning"] = "channel_pruning"
    amount: Share | Annotated[list[Share], Field(min_length=1, max_length=8)] | None = Field(
        default=None,
        description="Share of the whole model's `of` to take out; a list gives a curve.",
    )
    of: Of = Field(default="macs", description="What `amount` is a share of.")
    speedup: float | None = Field(
        default=None,
        gt=1,
        le=10,
        allow_inf_nan=False,
        description="Measured speed-up to reach, in place of amount.",
    )
    widths: dict[str, Annotated[int, Field(gt=0)]] | None = Field(
        default=None,
        min_length=1,
        description="Channels to keep, by the name of the weight that makes them.",
    )
    criterion: Criterion = Field(
        default="obs",
        description="How channels are ranked; obs looks at what the refit will leave.",
    )
    refit: bool = Field(
        default=True,
        description="Refit the layers that lost inputs, by least squares on the samples.",
    )
    round_to: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] = Field(
        default="auto",
        description="Widths are multiples of this; auto is what the target's kernels like.",
    )

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        given = [name for name in ("amount", "speedup", "widths") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of amount, speedup and widths, not {found}")
        return self

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        context.progress(0, "finding groups of channels")
        samples = _samples(context.calibration)
        self._warn_of_samples(samples)
        folder = context.workdir / "channels"
        folder.mkdir(parents=True, exist_ok=True)
        surveyed = survey(_cleaned(model, context), samples, folder=folder, seed=context.seed)
        _tell_pinned(surveyed)
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        scoring = Scoring(
            samples, folder, context.seed, threads, _stage(context, first=0.15, last=0.6)
        )
        scored = scoring.run(surveyed, self.criterion, refit=self.refit)
        work = _Work(surveyed, scored, samples, context, threads, folder, self.refit)
        if isinstance(self.amount, list):
            return self._curve(work, self.amount)
        lost = self._plan(work)
        return _described(work, work.shrink(lost, 0.65, 1.0))

    def _plan(self, work: _Work) -> list[int]:
        if self.widths is not None:
            return _by_widths(work.survey, self.widths)
        if self.speedup is not None:
            return self._by_speedup(work, self.speedup)
        if isinstance(self.amount, float):
            return self._by_amount(work, self.amount)
        raise InvalidRecipe("channel_pruning needs an amount, a speed-up or widths")

    def _by_amount(self, work: _Work, amount: float) -> list[int]:
        allocation = Allocation(
            work.scored.rankings, self._steps(work), work.survey.costs(self.of)
        )
        lost = allocation.reach(amount)
        reached = allocation.saved(lost)
        if abs(reached - amount) > NEAR:
            warnings.warn(
                CompressionWarning(
                    f"{reached:.3f} of the {self.of} could be pruned, not {amount:g}: "
                    "the rest is pinned, or would go in too coarse steps",
                    code="amount_not_reached",
                ),
                stacklevel=2,
            )
        return lost

    def _steps(self, work: _Work) -> list[list[Steps]]:
        """Steps of all groups, from the coarsest that is liked to the finest allowed."""
        if self.round_to == "auto":
            liked = _liked_block(work.context)
            sizes = [size for size in (_WIDE_BLOCK, _BLOCK, _LEAST_BLOCK) if size <= liked]
            sizes.append(1)
        else:
            sizes = [self.round_to]
        groups = work.survey.groups
        return [[steps(g, work.survey.step_width(g), size) for g in groups] for size in sizes]

    def _by_speedup(self, work: _Work, speedup: float) -> list[int]:
        """Plan by the table of timed layers, then correct by what the whole model measures."""
        feed = work.samples[0]
        threads = work.context.target.threads
        original = work.folder / "prepared.onnx"
        whole, _ = measured_speedup(original, original, feed, threads=threads)
        table = time_layers(
            work.survey,
            self._steps(work)[0],
            rest=whole,
            folder=work.folder,
            threads=threads,
            progress=_stage(work.context, first=0.6, last=0.65),
        )
        allocation = Allocation(work.scored.rankings, [table.steps], table.costs)
        share = 1 - 1 / speedup
        path = work.folder / "timed.onnx"
        lost, reached = allocation.reach(share), 1.0
        for _ in range(_CORRECTIONS):
            graph.save(work.shrink_only(lost), path)
            _, reached = measured_speedup(original, path, feed, threads=threads)
            if reached >= speedup * (1 - NEAR):
                return lost
            share = min(0.95, share + (1 - 1 / speedup) - (1 - 1 / reached))
            lost = allocation.reach(share)
        _warn_of_speed(speedup, reached)
        return lost

    def _curve(self, work: _Work, amounts: Sequence[float]) -> ir.Model:
        """A file for each amount; the smallest amount is the result."""
        files = work.context.workdir / "files"
        files.mkdir(exist_ok=True)
        points: list[dict[str, object]] = []
        result: ir.Model | None = None
        for number, amount in enumerate(sorted(amounts)):
            first = 0.65 + 0.35 * number / len(amounts)
            lost = self._by_amount(work, amount)
            shrunk = work.shrink(lost, first, first + 0.35 / len(amounts))
            path = files / f"pruned-{amount:g}.onnx"
            graph.save(shrunk.model, path)
            points.append(_point(work, shrunk, amount, path))
            result = result or _described(work, shrunk)
        if result is None:
            raise InvalidRecipe("a curve needs amounts")
        result.meta["extra"]["curve"] = points
        return result

    def _warn_of_samples(self, samples: CalibrationSet) -> None:
        if samples.source == "synthetic":
            _warn(
                "no samples were given: channels were chosen and refitted on noise, so what "
                "the model keeps is not verified",
                "not_verified",
            )
        uses = self.refit or self.criterion not in WITHOUT_DATA
        if uses and len(samples) < _FEW_SAMPLES:
            _warn(
                f"{len(samples)} samples are few to choose and refit channels by; give at "
                f"least {_FEW_SAMPLES}, better 128",
                "few_samples",
            )
