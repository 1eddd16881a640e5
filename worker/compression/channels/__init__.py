"""Channel pruning of any ONNX graph: groups, proof, ranking, allocation, cut and refit."""

from worker.compression.channels.allocation import NEAR, Allocation, Steps, steps
from worker.compression.channels.costs import Of
from worker.compression.channels.criteria import WITHOUT_DATA, Criterion, Ranking
from worker.compression.channels.groups import Group
from worker.compression.channels.latency import LatencyTable, measured_speedup, time_layers
from worker.compression.channels.observe import MOST_SAMPLES
from worker.compression.channels.scoring import Scored, Scoring
from worker.compression.channels.shrinking import Shrinking, Shrunk
from worker.compression.channels.survey import Survey, survey

__all__ = [
    "MOST_SAMPLES",
    "NEAR",
    "WITHOUT_DATA",
    "Allocation",
    "Criterion",
    "Group",
    "LatencyTable",
    "Of",
    "Ranking",
    "Scored",
    "Scoring",
    "Shrinking",
    "Shrunk",
    "Steps",
    "Survey",
    "measured_speedup",
    "steps",
    "survey",
    "time_layers",
]
