"""What can be pruned in a model, proved, and what it costs: the start of every pruning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir

from worker.compression import graph
from worker.compression.channels.costs import Costs, Of, costs
from worker.compression.channels.groups import Group, Structure, analyse
from worker.compression.channels.prepare import prepare
from worker.compression.channels.proof import Proof, Verdict
from worker.compression.channels.single import in_single, widened
from worker.compression.channels.trace import Feed, trace

# Samples looked through for one of another shape than the first.
_LOOKED_AT = 64


@dataclass(frozen=True)
class Survey:
    """A prepared model, its proved groups, and multiply-accumulates by node for one sample."""

    model: ir.Model
    structure: Structure
    verdicts: Sequence[Verdict]
    macs: Mapping[str, int]
    proof: Proof

    @property
    def groups(self) -> Sequence[Group]:
        return self.structure.groups

    def costs(self, of: Of) -> Costs:
        return costs(self.model, self.structure, of, self.macs)

    def width(self, group: Group) -> int:
        """Channels of the first producer that one unit is."""
        place = group.producers[0]
        labels = self.structure.axes[place.value][place.axis]
        return int(np.count_nonzero(labels == group.units[0]))

    def step_width(self, group: Group) -> int:
        """Channels that one unit is where kernels feel it most: at the narrowest producer."""
        widths = [
            int(np.count_nonzero(self.structure.axes[p.value][p.axis] == group.units[0]))
            for p in group.producers
        ]
        return max(1, min(widths))


def survey(model: ir.Model, samples: Sequence[Feed], *, folder: Path, seed: int) -> Survey:
    """Analyse a model, which is changed to its prepared form, and prove every group."""
    prepare(model)
    seen = trace(model, samples[0], folder)
    structure = analyse(model, seen)
    feeds = [widened(feed) for feed in proof_feeds(samples)]
    proof = Proof(in_single(model), structure, feeds, folder, seed)
    verdicts = proof.of_all()
    structure = _without(structure, verdicts)
    path = folder / "prepared.onnx"
    graph.save(model, path)
    return Survey(
        model,
        structure,
        verdicts,
        graph.macs(path, samples[0]),
        replace(proof, structure=structure),
    )


def unreached(model: ir.Model) -> list[tuple[str, str]]:
    """Weights in bodies of If, Loop and Scan, which stay as they are, each with the reason."""
    found = []
    for weight in graph.weights(model):
        inner = [node for node in weight.nodes if node.graph is not model.graph]
        if inner:
            where = inner[0].name or inner[0].op_type
            found.append((weight.value.name or "", f"{where} stands in a body of If or Loop"))
    return found


def proof_feeds(samples: Sequence[Feed]) -> list[Feed]:
    """The first sample, and one of another shape where there is one."""
    first = _shapes(samples[0])
    for index in range(1, min(len(samples), _LOOKED_AT)):
        if _shapes(samples[index]) != first:
            return [samples[0], samples[index]]
    return [samples[0]]


def _shapes(feed: Feed) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in feed.items()}


def _without(structure: Structure, verdicts: Sequence[Verdict]) -> Structure:
    """Groups that failed their proof are pinned."""
    failed = {verdict.group: verdict.reason for verdict in verdicts if not verdict.proved}
    pinned = [
        replace(group, reason=f"its proof failed: {failed[group.name]}")
        for group in structure.groups
        if group.name in failed
    ]
    kept = tuple(group for group in structure.groups if group.name not in failed)
    return replace(structure, groups=kept, pinned=(*structure.pinned, *pinned))
