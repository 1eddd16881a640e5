"""From a plan to a smaller model: cut, check, refit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from worker.compression.channels.groups import Cut
from worker.compression.channels.proof import TOLERANCE
from worker.compression.channels.refit import Refit
from worker.compression.channels.rewrite import prune
from worker.compression.channels.scoring import Scored
from worker.compression.channels.survey import Survey
from worker.compression.channels.trace import Feed
from worker.compression.errors import PassFailed

KeptChannels = dict[str, dict[str, list[int]]]


@dataclass(frozen=True)
class Shrunk:
    """The smaller model; `kept` lists the positions left of each weight's axis that was cut."""

    model: ir.Model
    lost: Sequence[int]
    kept: KeptChannels
    refitted: Sequence[str]


@dataclass(frozen=True)
class Shrinking:
    """What plans are carried out on."""

    survey: Survey
    scored: Scored
    samples: Sequence[Feed]
    folder: Path
    threads: int

    def run(
        self, lost: Sequence[int], *, refit: bool, progress: Callable[[float], None]
    ) -> Shrunk:
        """Take the least important units of each group out.

        Raises:
            PassFailed: the cut model differs from the one that reads zeros there.
        """
        survey = self.survey
        cut = survey.structure.cut(
            unit
            for ranking, count in zip(self.scored.rankings, lost, strict=True)
            for unit in ranking.order[:count]
        )
        error = survey.proof.of_cut(cut)
        if error > TOLERANCE:
            raise PassFailed(
                f"the pruned model differs from the masked one by {error:.1e}",
                hint="prune less, or leave this method out of the recipe",
                code="proof_failed",
            )
        model = prune(survey.model, survey.structure, cut)
        refitted: list[str] = []
        if refit and cut.any():
            refitted = self._refit(model, cut, progress)
        kept = self._kept(cut)
        common.RemoveUnusedNodesPass()(model)
        common.DeduplicateInitializersPass()(model)
        return Shrunk(model, tuple(lost), kept, refitted)

    def _refit(self, model: ir.Model, cut: Cut, progress: Callable[[float], None]) -> list[str]:
        refit = Refit(
            model,
            self.survey.structure,
            cut,
            self.scored.observations,
            self.samples,
            self.folder,
            self.threads,
        )
        return refit.run(progress)

    def _kept(self, cut: Cut) -> KeptChannels:
        structure = self.survey.structure
        found: KeptChannels = {}
        for name in self.survey.model.graph.initializers:
            for axis in range(len(structure.axes.get(name, ()))):
                kept = structure.kept(name, axis, cut)
                if not kept.all():
                    found.setdefault(name, {})[str(axis)] = np.flatnonzero(kept).tolist()
        return found
