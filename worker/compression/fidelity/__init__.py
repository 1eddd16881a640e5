"""How close a compressed model stays to the original, judged on samples that it never saw."""

from worker.compression.fidelity.bounds import bound_used, drop, interval_end, keeps, worst_sqnr
from worker.compression.fidelity.kinds import output_kinds
from worker.compression.fidelity.measures import (
    Accuracy,
    Fidelity,
    Interval,
    OutputFidelity,
    OutputKind,
    WorstChannel,
)
from worker.compression.fidelity.own_metric import OwnMetric, Scored, scores
from worker.compression.fidelity.reference import Reference

__all__ = [
    "Accuracy",
    "Fidelity",
    "Interval",
    "OutputFidelity",
    "OutputKind",
    "OwnMetric",
    "Reference",
    "Scored",
    "WorstChannel",
    "bound_used",
    "drop",
    "interval_end",
    "keeps",
    "output_kinds",
    "scores",
    "worst_sqnr",
]
