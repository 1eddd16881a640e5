"""From a plan to a smaller model: cut, check, refit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from worker.compression.channels.criteria import Ranking
from worker.compression.channels.groups import Cut
from worker.compression.channels.proof import TOLERANCE
from worker.compression.channels.refit import Refit
from worker.compression.channels.rewrite import prune
from worker.compression.channels.study import Study
from worker.compression.channels.survey import Survey
from worker.compression.errors import PassFailed

KeptChannels = dict[str, dict[str, list[int]]]


@dataclass(frozen=True)
class Shrunk:
    """The smaller model; `kept` lists the positions left of each weight's axis that was cut."""

    model: ir.Model
    lost: Sequence[int]
    kept: KeptChannels
    refitted: Sequence[str]


def shrink(
    study: Study,
    rankings: Sequence[Ranking],
    lost: Sequence[int],
    *,
    refit: bool,
    progress: Callable[[float, str], None],
) -> Shrunk:
    """Take the least important units of each group out; `lost` says how many.

    Raises:
        PassFailed: the cut model differs from the one that reads zeros there.
    """
    survey = study.survey
    structure = survey.structure
    cut = structure.cut(
        unit
        for ranking, count in zip(rankings, lost, strict=True)
        for unit in ranking.order[:count]
    )
    _prove(survey, cut)
    model = prune(survey.model, structure, cut)
    refitted: list[str] = []
    if refit and cut.any():
        seen = study.observations(lambda share, text: progress(0.5 * share, text))
        step = Refit(model, structure, cut, seen, study.samples, study.folder, study.threads)
        refitted = step.run(
            lambda share: progress(0.5 + 0.5 * share, "refitting what lost channels")
        )
    kept = _kept(survey, cut)
    common.RemoveUnusedNodesPass()(model)
    common.DeduplicateInitializersPass()(model)
    return Shrunk(model, tuple(lost), kept, refitted)


def _prove(survey: Survey, cut: Cut) -> None:
    error = survey.proof.of_cut(cut)
    if error > TOLERANCE:
        raise PassFailed(
            f"the pruned model differs from the masked one by {error:.1e}",
            hint="prune less, or leave this method out of the recipe",
            code="proof_failed",
        )


def _kept(survey: Survey, cut: Cut) -> KeptChannels:
    found: KeptChannels = {}
    for name in survey.model.graph.initializers:
        for axis in range(len(survey.structure.axes.get(name, ()))):
            kept = survey.structure.kept(name, axis, cut)
            if not kept.all():
                found.setdefault(name, {})[str(axis)] = np.flatnonzero(kept).tolist()
    return found
