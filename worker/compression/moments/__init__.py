"""Second moments of what linear layers read: streamed, the memory bounded by the layers."""

from worker.compression.moments.linear import Linear, linear_layers
from worker.compression.moments.streaming import stream
from worker.compression.moments.sums import Moments, Rounding

__all__ = ["Linear", "Moments", "Rounding", "linear_layers", "stream"]
