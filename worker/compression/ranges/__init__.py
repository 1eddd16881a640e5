"""Ranges of activations: seen in one pass, from which any method takes its own."""

from worker.compression.ranges.methods import Method
from worker.compression.ranges.observed import Observed
from worker.compression.ranges.observing import Observation, observe

__all__ = ["Method", "Observation", "Observed", "observe"]
