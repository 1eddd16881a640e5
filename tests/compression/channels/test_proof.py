"""The proof is alive: whatever is stated wrongly about a graph, it finds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.compression.channels.graphs import GRAPHS, PINNED
from tests.models import opened
from worker.compression.channels import Survey, survey
from worker.compression.channels.atoms import Atoms, Labels, fixed
from worker.compression.channels.proof import TOLERANCE
from worker.compression.channels.rules import RULES
from worker.compression.channels.rules.elementwise import unary
from worker.compression.channels.site import Rule, Site

Wrong = Callable[[Rule], Rule]


def surveyed(name: str, folder: Path) -> Survey:
    made, feed = (GRAPHS | PINNED)[name]
    return survey(opened(made()), [feed(0), feed(1)], folder=folder, seed=0)


def mirrored(axis: int, output: int = 0) -> Wrong:
    """The right rule, then the labels of an output's axis the wrong way round."""
    return changed(axis, lambda labels: labels[::-1], output)


def changed(axis: int, change: Callable[[Labels], Labels], output: int = 0) -> Wrong:
    def wrong(right: Rule) -> Rule:
        def rule(site: Site) -> None:
            right(site)
            made = list(site.ties.axes[site.node.outputs[output].name or ""])
            if len(made) > axis:
                made[axis] = change(made[axis])
                site.make(made, output)

        return rule

    return wrong


def like(rule: Rule) -> Wrong:
    """Another rule in its place."""
    return lambda right: rule


def first_operand_only(right: Rule) -> Rule:
    """Elementwise, but blind to what the other operand is tied to."""
    return unary


def untied(right: Rule) -> Rule:
    """The right labels, but nothing is tied to anything."""

    def rule(site: Site) -> None:
        join = Atoms.join
        Atoms.join = lambda *_: None  # type: ignore[method-assign]
        try:
            right(site)
        finally:
            Atoms.join = join  # type: ignore[method-assign]

    return rule


def read_backwards(site: Site) -> None:
    """Gemm as if its rows of weights stood the other way round."""
    a, b = site.given(0), site.given(1)
    site.produce(1, 0)
    site.join(a[1], b[1][::-1])
    site.consume(1, 1)
    site.make([a[0], b[0]])


def interleaved(site: Site) -> None:
    """A bidirectional LSTM as if its gates were dealt out unit by unit."""
    w, r, b = (site.given(index) for index in (1, 2, 3))
    hidden = r[2]
    for labels, times in ((w[1], 4), (r[1], 4), (b[1], 8)):
        site.join(labels, np.repeat(hidden, times))
    site.produce(1, 1)
    site.consume(2, 2)
    site.make([*(fixed(size) for size in site.made_shape()[:-1]), hidden])


def mixed(labels: Labels) -> Labels:
    """Repeated positions as if they were tiled."""
    return labels.reshape(2, -1).T.ravel()


# What is stated wrongly, on which graph, about which operator, and how.
WRONG: dict[str, tuple[str, str, Wrong]] = {
    "Concat in the wrong order": ("dense", "Concat", mirrored(1)),
    "Split the wrong way round": ("dense", "Split", mirrored(1, 1)),
    "Slice off by one": ("indexing", "Slice", changed(1, lambda ch: np.roll(ch, 1))),
    "Gather of other channels": ("indexing", "Gather", mirrored(1)),
    "Pad on the other side": ("indexing", "Pad", mirrored(1)),
    "DepthToSpace of other channels": ("indexing", "DepthToSpace", mirrored(1)),
    "PRelu without its slope": ("indexing", "PRelu", first_operand_only),
    "BatchNorm without its parameters": ("indexing", "BatchNormalization", untied),
    "residual sum of one operand": ("residual", "Add", first_operand_only),
    "gate of one operand": ("squeeze_excite", "Mul", first_operand_only),
    "depthwise with tiled outputs": (
        "depthwise",
        "Conv",
        changed(1, lambda labels: mixed(labels) if labels.size == 32 else labels),
    ),
    "groups that are not tied": ("grouped", "Conv", untied),
    "ConvTranspose with mirrored outputs": ("unet", "ConvTranspose", mirrored(1)),
    "Resize that mirrors": ("unet", "Resize", mirrored(1)),
    "recurrent gates interleaved": ("lstm", "LSTM", like(interleaved)),
    "recurrent outputs mirrored": ("lstm", "GRU", mirrored(3)),
    "Softmax as if elementwise": ("softmaxed", "Softmax", like(unary)),
    "heads mirrored": ("transformer", "Transpose", mirrored(1)),
    "flattened the wrong way": ("flattened", "Flatten", changed(1, mixed)),
    "a weight read backwards": ("flattened", "Gemm", like(read_backwards)),
}


@pytest.mark.parametrize("error", WRONG)
def test_a_wrong_rule_is_found_out(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, op, wrong = WRONG[error]
    monkeypatch.setitem(RULES, op, wrong(RULES[op]))
    found = surveyed(name, tmp_path)
    failed = [verdict for verdict in found.verdicts if not verdict.proved]
    assert failed
    assert all(verdict.reason for verdict in failed)
    pinned = {group.name: group.reason for group in found.structure.pinned}
    assert all("proof failed" in (pinned[verdict.group] or "") for verdict in failed)


@pytest.mark.parametrize("error", WRONG)
def test_what_survives_a_wrong_rule_can_be_cut_together(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, op, wrong = WRONG[error]
    monkeypatch.setitem(RULES, op, wrong(RULES[op]))
    found = surveyed(name, tmp_path)
    half = [unit for group in found.groups for unit in group.units[::2][1:]]
    assert found.proof.of_cut(found.structure.cut(half)) <= TOLERANCE
