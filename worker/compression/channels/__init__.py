"""Channel pruning of any ONNX graph: groups, proof, ranking, allocation, cut and refit."""

from worker.compression.channels.allocation import NEAR, tolerance
from worker.compression.channels.costs import Of
from worker.compression.channels.criteria import WITHOUT_DATA, Criterion, Ranking
from worker.compression.channels.groups import Group
from worker.compression.channels.observe import MOST_SAMPLES
from worker.compression.channels.plans import (
    Plan,
    by_amount,
    by_widths,
    kernel_block,
)
from worker.compression.channels.shrinking import Shrunk, shrink
from worker.compression.channels.speed import by_speedup
from worker.compression.channels.study import Study
from worker.compression.channels.summary import summary
from worker.compression.channels.survey import Survey, survey

__all__ = [
    "MOST_SAMPLES",
    "NEAR",
    "WITHOUT_DATA",
    "Criterion",
    "Group",
    "Of",
    "Plan",
    "Ranking",
    "Shrunk",
    "Study",
    "Survey",
    "by_amount",
    "by_speedup",
    "by_widths",
    "kernel_block",
    "shrink",
    "summary",
    "survey",
    "tolerance",
]
