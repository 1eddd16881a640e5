"""All that a model shows of its channels: looked at once, then asked by every plan."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from worker.compression.channels.consumers import consumers, followers
from worker.compression.channels.criteria import (
    CRITERIA,
    WITHOUT_DATA,
    Criterion,
    Evidence,
    Ranking,
    Seen,
    l2,
)
from worker.compression.channels.groups import Group
from worker.compression.channels.observe import Observation, is_held_out, observe
from worker.compression.channels.sensitivity import Felt, probe_samples
from worker.compression.channels.survey import Survey
from worker.compression.channels.trace import Feed

Progress = Callable[[float, str], None]


class Study:
    """A survey and what samples add to it; each question is answered once and remembered."""

    def __init__(
        self, survey: Survey, samples: Sequence[Feed], folder: Path, *, seed: int, threads: int
    ) -> None:
        self.survey = survey
        self.samples = samples
        self.folder = folder
        self.threads = threads
        self._seed = seed
        self._observations: Mapping[str, Observation] | None = None
        self._rankings: dict[Criterion, Sequence[Ranking]] = {}

    def observations(self, progress: Progress) -> Mapping[str, Observation]:
        """What layers read, and what they should give, by their weight and in graph order."""
        if self._observations is None:
            model, structure = self.survey.model, self.survey.structure
            ranking = consumers(model, structure)
            order = {node.name: position for position, node in enumerate(model.graph)}
            layers = sorted(
                [*ranking, *followers(model, structure)], key=lambda layer: order[layer.node]
            )
            self._observations = observe(
                model,
                layers,
                self.samples,
                ranking={layer.weight for layer in ranking},
                folder=self.folder,
                seed=self._seed,
                threads=self.threads,
                progress=lambda share: progress(share, "looking at activations"),
            )
        return self._observations

    def rankings(self, criterion: Criterion, progress: Progress) -> Sequence[Ranking]:
        """One ranking for each group, in their order."""
        if criterion not in self._rankings:
            self._rankings[criterion] = self._ranked(criterion, progress)
        return self._rankings[criterion]

    def _ranked(self, criterion: Criterion, progress: Progress) -> list[Ranking]:
        observations: Mapping[str, Observation] = {}
        if criterion not in WITHOUT_DATA:
            observations = self.observations(lambda share, text: progress(0.5 * share, text))
        felt = self._felt(observations)
        found = []
        for number, group in enumerate(self.survey.groups):
            share = (number + 1) / len(self.survey.groups)
            progress(0.5 + 0.5 * share, f"ranking the channels of {group.name}")
            found.append(felt.felt(self._ranking(criterion, group, observations)))
        return found

    def _ranking(
        self, criterion: Criterion, group: Group, observations: Mapping[str, Observation]
    ) -> Ranking:
        seen = _seen(group, observations)
        evidence = Evidence(group, self.survey.structure, self._weights(), seen)
        if not seen and criterion not in WITHOUT_DATA:
            return l2(evidence)
        return CRITERIA[criterion](evidence)

    def _weights(self) -> dict[str, np.ndarray]:
        return {
            name: value.const_value.numpy()
            for name, value in self.survey.model.graph.initializers.items()
            if value.const_value is not None
        }

    def _felt(self, observations: Mapping[str, Observation]) -> Felt:
        """Probes run on samples that the ranking was not made from."""
        every = range(len(self.samples))
        chosen = [index for index in every if is_held_out(index)] or list(every)
        count = probe_samples(sum(self.survey.macs.values()), len(self.survey.groups))
        feeds = [self.samples[index] for index in chosen[:count]]
        return Felt(self.survey, observations, feeds, self.folder, self.threads)


def _seen(group: Group, observations: Mapping[str, Observation]) -> list[Seen]:
    found = []
    for weight in dict.fromkeys(use.place.value for use in group.consumers):
        if weight in observations:
            seen = observations[weight]
            matrix: np.ndarray = seen.layer.matrix(seen.weight)
            found.append(Seen(seen.layer, matrix, seen.moments))
    return found
