"""What the report says of a pruning: widths, errors, and what stays for which reason."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from worker.compression.channels.criteria import Ranking
from worker.compression.channels.groups import Group
from worker.compression.channels.plans import Plan
from worker.compression.channels.shrinking import Shrunk
from worker.compression.channels.study import Study
from worker.compression.channels.survey import Survey, unreached

# Points of an error curve, the ends among them.
_POINTS = 17


def summary(
    study: Study, rankings: Sequence[Ranking], plan: Plan, shrunk: Shrunk | None
) -> dict[str, Any]:
    """Groups with their widths before and after and their error curves, and what is pinned.

    Written for JSON: plain numbers, lists and strings.
    """
    survey = study.survey
    groups = [
        _group(survey, group, ranking, lost)
        for group, ranking, lost in zip(survey.groups, rankings, plan.lost, strict=True)
    ]
    pinned = [
        {"name": group.name, "channels": _channels(survey, group), "reason": group.reason}
        for group in survey.structure.pinned
    ]
    pinned += [
        {"name": name, "channels": None, "reason": reason}
        for name, reason in (*survey.structure.idle, *unreached(survey.model))
    ]
    return {
        "groups": groups,
        "pinned": pinned,
        "saved": {
            of: round(survey.costs(of).saved(plan.lost), 4) if plan.lost else 0.0
            for of in ("macs", "parameters", "channels")
        },
        "refitted": [] if shrunk is None else list(shrunk.refitted),
        "timed": plan.timed,
    }


def _group(survey: Survey, group: Group, ranking: Ranking, lost: int) -> dict[str, Any]:
    each, units = survey.width(group), len(group.units)
    return {
        "name": group.name,
        "weights": [place.value for place in group.producers],
        "readers": [use.node for use in group.consumers],
        "before": each * units,
        "after": each * (units - lost),
        "step": each,
        "errors": _curve(ranking, each),
    }


def _curve(ranking: Ranking, each: int) -> list[tuple[int, float]]:
    """(channels kept, error expected) from the full width down."""
    units = len(ranking.order)
    places = np.unique(np.linspace(0, units - 1, min(units, _POINTS)).round().astype(int))
    return [
        (each * (units - place), float(f"{ranking.errors[place]:.4g}"))
        for place in places.tolist()
    ]


def _channels(survey: Survey, group: Group) -> int:
    return survey.width(group) * len(group.units)
