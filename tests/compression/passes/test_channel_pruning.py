"""Settings of channel pruning, what it leaves behind, and what it warns of."""

import json
import warnings
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from pydantic import ValidationError

from tests.compression.channels.convnets import residual
from tests.compression.channels.parts import image, sequence
from tests.compression.channels.reorders import softmaxed
from tests.compression.channels.sequences import transformer
from tests.models import branches, context, normal, opened, run, sqnr
from worker.compression.channels import WITHOUT_DATA
from worker.compression.errors import CompressionWarning, InvalidRecipe
from worker.compression.passes import FILES, ChannelPruning

FEEDS = [image(seed) for seed in range(24)]


@pytest.mark.parametrize("amount", [0.0, 1.0, -0.1, float("nan"), [], [0.5, 1.0]])
def test_impossible_amounts_are_refused(amount: object) -> None:
    with pytest.raises(ValidationError):
        ChannelPruning.model_validate({"amount": amount})


def test_exactly_one_goal_is_taken() -> None:
    with pytest.raises(ValidationError, match="exactly one"):
        ChannelPruning()
    with pytest.raises(ValidationError, match="exactly one"):
        ChannelPruning(amount=0.3, speedup=2.0)


@pytest.mark.parametrize("of", ["macs", "parameters", "channels"])
def test_the_amount_is_reached_in_what_it_is_a_share_of(of: str, tmp_path: Path) -> None:
    pruning = ChannelPruning.model_validate({"amount": 0.3, "of": of, "round_to": 1})
    result = pruning.apply(opened(residual()), context(tmp_path, FEEDS))
    assert result.meta["extra"]["channels"]["saved"][of] == pytest.approx(0.3, abs=0.03)


def test_widths_are_kept_to_and_the_kept_channels_written(tmp_path: Path) -> None:
    pruning = ChannelPruning(widths={"a1.weight": 5})
    result = pruning.apply(opened(residual()), context(tmp_path, FEEDS))
    assert list(result.graph.initializers["a1.weight"].shape.numpy()) == [5, 16, 3, 3]
    kept = json.loads((tmp_path / FILES / "kept_channels.json").read_text())
    assert kept["a1.weight"]["0"] == kept["a2.weight"]["1"]
    assert len(kept["a1.weight"]["0"]) == 5


@pytest.mark.parametrize(
    ("widths", "said"),
    [
        ({"nothing": 3}, "no weight named"),
        ({"fc.weight": 3}, "keeps its shape"),
        ({"a1.weight": 99}, "has 16 channels"),
        ({"stem.weight": 8, "a2.weight": 9}, "go together"),
    ],
)
def test_impossible_widths_name_the_culprit(
    widths: dict[str, int], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRecipe, match=said):
        ChannelPruning(widths=widths).apply(opened(residual()), context(tmp_path, FEEDS))


@pytest.mark.parametrize("criterion", ["l1", "l2", "activation", "apoz", "wanda", "obs"])
def test_the_refit_comes_closer_by_every_criterion(criterion: str, tmp_path: Path) -> None:
    def closeness(*, refit: bool) -> float:
        pruning = ChannelPruning.model_validate(
            {"widths": {"a1.weight": 10}, "criterion": criterion, "refit": refit}
        )
        feeds = [image(seed) for seed in range(64)]
        result = pruning.apply(opened(residual()), context(tmp_path, feeds))
        pairs = [
            (run(residual(), image(s), tmp_path)[0], run(result, image(s), tmp_path)[0])
            for s in range(900, 920)
        ]
        expected, found = (np.concatenate(side) for side in zip(*pairs, strict=True))
        return sqnr(expected, found)

    assert closeness(refit=True) > closeness(refit=False) + 1


def test_layers_behind_what_lost_inputs_are_fitted_too(tmp_path: Path) -> None:
    """The classifier reads a normalized axis that stays, and what is wrong with it now."""
    feeds = [sequence(seed) for seed in range(24)]
    pruning = ChannelPruning(widths={"up.weight": 40})
    result = pruning.apply(opened(transformer()), context(tmp_path, feeds))
    assert result.meta["extra"]["channels"]["refitted"] == ["down", "fc"]


def test_another_amount_on_the_same_model_needs_no_second_look(tmp_path: Path) -> None:
    cache: dict[str, object] = {}
    given = context(tmp_path, FEEDS)
    object.__setattr__(given, "cache", cache)
    ChannelPruning(amount=0.2, round_to=1).apply(opened(residual()), given)
    first = dict(cache)
    ChannelPruning(amount=0.4, round_to=1).apply(opened(residual()), given)
    assert list(cache.values()) == list(first.values())


def test_what_stands_in_bodies_stays_and_is_said(tmp_path: Path) -> None:
    feeds = [{"x": normal(2, 4, seed=seed)} for seed in range(16)]
    with pytest.warns(CompressionWarning, match="body of If") as heard:
        result = ChannelPruning(amount=0.3).apply(opened(branches()), context(tmp_path, feeds))
    assert [said.message.code for said in heard] == ["nothing_prunable"]
    assert len(result.meta["extra"]["channels"]["pinned"]) == 2


def test_few_samples_to_refit_are_warned_of_and_norms_need_none(tmp_path: Path) -> None:
    few = context(tmp_path, FEEDS[:4])
    with pytest.warns(CompressionWarning, match="4 samples are few"):
        ChannelPruning(widths={"a1.weight": 8}).apply(opened(residual()), few)
    for criterion in WITHOUT_DATA:
        pruning = ChannelPruning(widths={"a1.weight": 8}, criterion=criterion, refit=False)
        pruning.apply(opened(residual()), few)


def test_an_amount_out_of_reach_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(CompressionWarning, match="could be pruned, not 0.9"):
        ChannelPruning(amount=0.9).apply(opened(softmaxed()), context(tmp_path, FEEDS))


def test_what_a_clock_chose_is_done_again_by_widths(tmp_path: Path) -> None:
    def weights(pruning: ChannelPruning, folder: Path) -> tuple[ir.Model, dict[str, bytes]]:
        folder.mkdir()
        result = pruning.apply(opened(residual()), context(folder, FEEDS))
        held = result.graph.initializers.items()
        return result, {n: v.const_value.tobytes() for n, v in held if v.const_value}

    with warnings.catch_warnings():
        # How fast a graph this small gets is nothing to rely on.
        warnings.simplefilter("ignore", CompressionWarning)
        result, found = weights(ChannelPruning(speedup=1.2), tmp_path / "timed")
        again = ChannelPruning(speedup=1.2).settled(result.meta["extra"])
        assert again.speedup is None
        assert again.widths
        assert weights(again, tmp_path / "again")[1] == found
