"""From a plan to a smaller model: cut, check, refit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from worker.compression import graph
from worker.compression.channels.criteria import Ranking
from worker.compression.channels.groups import Cut
from worker.compression.channels.observe import is_held_out
from worker.compression.channels.proof import TOLERANCE
from worker.compression.channels.refit import Refit
from worker.compression.channels.rewrite import prune
from worker.compression.channels.sensitivity import Outputs, output_error, unsquashed
from worker.compression.channels.study import Study
from worker.compression.channels.survey import Survey
from worker.compression.channels.trace import Feed, with_outputs
from worker.compression.errors import PassFailed

# Held-out samples that a refit is judged on, at most.
_JUDGED = 32

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
        model, refitted = _refitted(study, cut, model, progress)
    kept = _kept(survey, cut)
    common.RemoveUnusedNodesPass()(model)
    common.DeduplicateInitializersPass()(model)
    return Shrunk(model, tuple(lost), kept, refitted)


def _refitted(
    study: Study, cut: Cut, plain: ir.Model, progress: Callable[[float, str], None]
) -> tuple[ir.Model, list[str]]:
    """The cut model with its layers refitted, or as it is where that comes closer.

    Each layer is fitted to what it gave; what counts are the outputs, on samples held out.
    """
    seen = study.observations(lambda share, text: progress(0.5 * share, text))
    model = plain.clone()
    step = Refit(
        model, study.survey.structure, cut, seen, study.samples, study.folder, study.threads
    )
    refitted = step.run(
        lambda share: progress(0.5 + 0.5 * share, "refitting what lost channels")
    )
    feeds = [one for n, one in enumerate(study.samples) if is_held_out(n)][:_JUDGED]
    if not feeds:
        return model, refitted
    original, cut_only, fitted = (
        outputs(one, feeds, study) for one in (study.survey.model, plain, model)
    )
    if output_error(original, fitted) <= output_error(original, cut_only):
        return model, refitted
    return plain, []


def outputs(model: ir.Model, feeds: Sequence[Feed], study: Study) -> Outputs:
    """What a model answers, output by output, before it is squashed: there an error shows."""
    names = [unsquashed(value) or value.name or "" for value in model.graph.outputs]
    path = study.folder / "judged.onnx"
    graph.save(with_outputs(model, names), path)
    session = graph.session(path, threads=study.threads)
    return [session.run(names, dict(feed)) for feed in feeds]


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
