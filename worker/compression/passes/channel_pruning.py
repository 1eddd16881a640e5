"""Channel pruning: whole channels go, the rest is refitted, and the file really gets faster.

Groups of channels are found from the graph alone and each is proved on the upload; which go
is decided on calibration samples, and least squares makes up for them.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import onnx_ir as ir
from pydantic import Field, model_validator

from worker.compression import graph
from worker.compression.benchmark import environment
from worker.compression.calibration import CalibrationSet
from worker.compression.channels import (
    MOST_SAMPLES,
    NEAR,
    WITHOUT_DATA,
    Criterion,
    Of,
    Plan,
    Ranking,
    Shrunk,
    Study,
    by_amount,
    by_speedup,
    by_widths,
    kernel_block,
    shrink,
    summary,
    survey,
    tolerance,
)
from worker.compression.cleaning import clean
from worker.compression.errors import CompressionWarning
from worker.compression.passes.base import FILES, Context, Pass

# Fewer samples than this say little about what may go, and are too few to refit by.
_FEW_SAMPLES = 16
_CLEANING_FEEDS = 2
_GIVEN = "given.onnx"

Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]


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
        description="Widths are multiples of this; auto is what kernels take whole, and never "
        "a width timed as slower than the full one.",
    )

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        given = [name for name in ("amount", "speedup", "widths") if getattr(self, name)]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"give exactly one of amount, speedup and widths, not {found}")
        return self

    def variants(self) -> Sequence[Self]:
        if not isinstance(self.amount, list):
            return [self]
        amounts = sorted(set(self.amount))
        return [self.model_copy(update={"amount": amount}) for amount in amounts]

    def settled(self, extra: Mapping[str, object]) -> Self:
        told = extra.get("channels")
        if not isinstance(told, dict) or not told["timed"]:
            return self
        widths = {group["name"]: group["after"] for group in told["groups"]}
        goal = {"amount": None, "speedup": None, "widths": widths}
        return self.model_copy(update=goal)

    def apply(self, model: ir.Model, context: Context) -> ir.Model:
        one = self.variants()[0]
        context.progress(0, "finding groups of channels")
        self._warn_of_samples(context.calibration)
        study = _study(model, context)
        if not study.survey.groups:
            return _unchanged(study)
        rankings = study.rankings(self.criterion, _stage(context, 0.15, 0.6))
        plan = one._plan(study, rankings, context)
        shrunk = shrink(
            study,
            rankings,
            plan.lost,
            refit=self.refit,
            progress=_stage(context, 0.65, 1.0),
        )
        if self.refit and any(plan.lost) and not shrunk.refitted:
            _warn(
                "refit_not_kept",
                "the layers that lost inputs stay as they were: a refit came no closer on "
                "samples held out, or none of them can be refitted",
            )
        return _described(study, rankings, plan, shrunk, context)

    def _plan(self, study: Study, rankings: Sequence[Ranking], context: Context) -> Plan:
        if self.widths is not None:
            return by_widths(study.survey, self.widths)
        block = None if self.round_to == "auto" else self.round_to
        threads = context.target.threads
        if self.speedup is not None:
            plan = by_speedup(
                study,
                rankings,
                self.speedup,
                upload=study.folder / _GIVEN,
                block=block or kernel_block(environment()[1]),
                threads=threads,
                progress=_stage(context, 0.6, 0.65),
            )
            _warn_of_speed(self.speedup, plan.reached)
            return plan
        amount = self.amount if isinstance(self.amount, float) else 0.0
        plan = by_amount(study, rankings, amount, of=self.of, block=block, threads=threads)
        self._warn_of_amount(amount, plan.reached)
        return plan

    def _warn_of_amount(self, amount: float, reached: float) -> None:
        if abs(reached - amount) <= tolerance(amount):
            return
        _warn(
            "amount_not_reached",
            f"{reached:.3f} of the {self.of} could be pruned, not {amount:g}: the rest is "
            "pinned, would go in too coarse steps, or would be slower",
        )

    def _warn_of_samples(self, samples: CalibrationSet) -> None:
        if not self.refit and self.criterion in WITHOUT_DATA:
            return
        if samples.source == "synthetic":
            _warn(
                "refit_without_samples",
                "no samples were given: channels were chosen and refitted on noise",
            )
        elif len(samples) < _FEW_SAMPLES:
            _warn(
                "few_samples_to_refit",
                f"{len(samples)} samples are few to choose and refit channels by; give at "
                f"least {_FEW_SAMPLES}, better 128",
            )


def _study(model: ir.Model, context: Context) -> Study:
    """What is known of this model: from an earlier call in this job, or found now."""
    folder = context.workdir / "channels"
    folder.mkdir(parents=True, exist_ok=True)
    given = folder / _GIVEN
    graph.save(model, given)
    key = f"channels {_digest(given)} {context.seed} {len(context.calibration)}"
    known = None if context.cache is None else context.cache.get(key)
    if isinstance(known, Study):
        return known
    study = _studied(given, folder, context)
    if context.cache is not None:
        context.cache[key] = study
    return study


def _studied(given: Path, folder: Path, context: Context) -> Study:
    feeds = [context.calibration[n] for n in range(len(context.calibration))[:_CLEANING_FEEDS]]
    cleaning = clean(given, folder / "cleaned.onnx", feeds=feeds)
    samples = context.calibration[:MOST_SAMPLES]
    context.progress(0.05, "proving groups of channels")
    found = survey(graph.load(cleaning.path), samples, folder=folder, seed=context.seed)
    return Study(found, samples, folder, seed=context.seed, threads=environment()[2])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stage(context: Context, first: float, last: float) -> Callable[[float, str], None]:
    """Progress of a part of the pass."""

    def progress(share: float, message: str) -> None:
        context.progress(first + share * (last - first), message)

    return progress


def _described(
    study: Study, rankings: Sequence[Ranking], plan: Plan, shrunk: Shrunk, context: Context
) -> ir.Model:
    """The result, with what the report is to say of it and the file of channels kept."""
    files = context.workdir / FILES
    files.mkdir(exist_ok=True)
    (files / "kept_channels.json").write_text(json.dumps(shrunk.kept, indent=1))
    shrunk.model.meta["extra"] = {"channels": summary(study, rankings, plan, shrunk)}
    return shrunk.model


def _unchanged(study: Study) -> ir.Model:
    told = summary(study, (), Plan((), 0.0), None)
    reasons = dict.fromkeys(pinned["reason"] for pinned in told["pinned"])
    found = "; ".join(list(reasons)[:3]) or "no layer with weights makes any"
    _warn("nothing_prunable", f"no channels can be pruned: {found}")
    model = study.survey.model.clone()
    model.meta["extra"] = {"channels": told}
    return model


def _warn_of_speed(wanted: float, reached: float) -> None:
    if reached < wanted * (1 - NEAR):
        _warn(
            "speedup_not_reached",
            f"pruning makes this model {reached:.2f} times as fast here, not {wanted:g} times",
        )


def _warn(code: str, message: str) -> None:
    warnings.warn(CompressionWarning(message, code=code), stacklevel=4)
