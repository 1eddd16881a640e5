"""Rank the units of every group by one criterion, on what the samples show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worker.compression.channels.criteria import (
    CRITERIA,
    WITHOUT_DATA,
    Criterion,
    Evidence,
    Ranking,
    Seen,
)
from worker.compression.channels.groups import Group
from worker.compression.channels.layers import consumers
from worker.compression.channels.observe import Observation, is_held_out, observe
from worker.compression.channels.sensitivity import Felt, Outputs, probe_samples
from worker.compression.channels.survey import Survey
from worker.compression.channels.trace import Feed

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Scored:
    """A ranking for each group, and what was observed for the refit."""

    rankings: Sequence[Ranking]
    observations: Mapping[str, Observation]


@dataclass(frozen=True)
class Scoring:
    """How to look at the samples."""

    samples: Sequence[Feed]
    folder: Path
    seed: int
    threads: int
    progress: Progress

    def run(self, survey: Survey, criterion: Criterion, *, refit: bool) -> Scored:
        """Rank all groups; the samples are only run where the criterion or the refit asks."""
        observations: Mapping[str, Observation] = {}
        if refit or criterion not in WITHOUT_DATA:
            observations = observe(
                survey.model,
                consumers(survey.model, survey.structure),
                self.samples,
                folder=self.folder,
                seed=self.seed,
                threads=self.threads,
                progress=lambda share: self.progress(0.5 * share, "looking at activations"),
            )
        return Scored(self._rank(survey, criterion, observations), observations)

    def _rank(
        self, survey: Survey, criterion: Criterion, observations: Mapping[str, Observation]
    ) -> list[Ranking]:
        weights = {
            name: value.const_value.numpy()
            for name, value in survey.model.graph.initializers.items()
            if value.const_value is not None
        }
        felt = self._felt(survey, observations)
        reference: Outputs | None = None
        rankings = []
        for number, group in enumerate(survey.groups):
            evidence = Evidence(group, survey.structure, weights, _seen(group, observations))
            ranking = CRITERIA[criterion](evidence)
            if ranking.probes:
                reference = reference or felt.reference()
                ranking = felt.felt(ranking, reference)
            rankings.append(ranking)
            share = (number + 1) / len(survey.groups)
            self.progress(0.5 + 0.5 * share, f"ranking the channels of {group.name}")
        return rankings

    def _felt(self, survey: Survey, observations: Mapping[str, Observation]) -> Felt:
        """Probes run on samples that the ranking was not made from."""
        every = range(len(self.samples))
        chosen = [index for index in every if is_held_out(index)] or list(every)
        count = probe_samples(sum(survey.macs.values()), len(survey.groups))
        feeds = [self.samples[index] for index in chosen[:count]]
        return Felt(survey.model, observations, feeds, self.folder, self.threads)


def _seen(group: Group, observations: Mapping[str, Observation]) -> list[Seen]:
    found = []
    for node in dict.fromkeys(use.node for use in group.consumers):
        if node in observations:
            seen = observations[node]
            matrix: np.ndarray = seen.layer.matrix(seen.weight)
            found.append(Seen(seen.layer, matrix, seen.moments))
    return found
