"""Channels scaled in one layer and back in the next: the same function, closer in int8."""

from worker.compression.equalization.equalizing import Equalized, equalize
from worker.compression.equalization.finding import groups, readings
from worker.compression.equalization.groups import Group
from worker.compression.equalization.scales import scales
from worker.compression.equalization.statistics import Seen

__all__ = ["Equalized", "Group", "Seen", "equalize", "groups", "readings", "scales"]
