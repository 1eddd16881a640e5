"""The error that each layer adds, all layers in one pass (algorithms.md 3.6).

A twin of a layer computes, from the tensors that the original made, what the layer became; the
difference to the original's own output is the error of this layer alone. Twins see no error of
the layers before them.
"""

from worker.compression.sensitivity.measuring import twin_sqnr
from worker.compression.sensitivity.slices import result_twin
from worker.compression.sensitivity.twins import Twin

__all__ = ["Twin", "result_twin", "twin_sqnr"]
