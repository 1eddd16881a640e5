"""How close a compressed model stays to the original, judged on samples that it never saw."""

from worker.compression.fidelity.answers import is_written_softmax
from worker.compression.fidelity.bounds import (
    bound_used,
    drop,
    error_power,
    foretold,
    interval_end,
    keeps,
    worst_sqnr,
)
from worker.compression.fidelity.decoding import Pair, pair
from worker.compression.fidelity.examining import Examined, examine
from worker.compression.fidelity.kinds import output_kinds
from worker.compression.fidelity.layout import Layout, layout
from worker.compression.fidelity.measures import (
    Accuracy,
    Fidelity,
    Interval,
    OutputFidelity,
    OutputKind,
    WorstChannel,
)
from worker.compression.fidelity.own_metric import Decoded, OwnMetric, Scored, Yardstick, scores
from worker.compression.fidelity.reference import Reference
from worker.compression.fidelity.signal import LOST_DB, Signal

__all__ = [
    "LOST_DB",
    "Accuracy",
    "Decoded",
    "Examined",
    "Fidelity",
    "Interval",
    "Layout",
    "OutputFidelity",
    "OutputKind",
    "OwnMetric",
    "Pair",
    "Reference",
    "Scored",
    "Signal",
    "WorstChannel",
    "Yardstick",
    "bound_used",
    "drop",
    "error_power",
    "examine",
    "foretold",
    "interval_end",
    "is_written_softmax",
    "keeps",
    "layout",
    "output_kinds",
    "pair",
    "scores",
    "worst_sqnr",
]
