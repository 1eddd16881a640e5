"""The methods: one file each, one line each in `AnyPass`."""

from typing import Annotated

from pydantic import Field

from worker.compression.passes.base import FILES, Context, Pass, Target
from worker.compression.passes.channel_pruning import ChannelPruning
from worker.compression.passes.compaction import Compaction
from worker.compression.passes.cross_layer_equalization import CrossLayerEqualization
from worker.compression.passes.dynamic_quantization import DynamicQuantization
from worker.compression.passes.graph_cleaning import GraphCleaning
from worker.compression.passes.half_precision import HalfPrecision
from worker.compression.passes.magnitude_pruning import MagnitudePruning
from worker.compression.passes.runtime_fusion import RuntimeFusion
from worker.compression.passes.smooth_quantization import SmoothQuantization
from worker.compression.passes.static_quantization import StaticQuantization
from worker.compression.passes.weight_quantization import WeightQuantization

# An explicit union: the type checker sees it, and pydantic has no supported way to build one.
AnyPass = Annotated[
    GraphCleaning
    | MagnitudePruning
    | ChannelPruning
    | CrossLayerEqualization
    | SmoothQuantization
    | StaticQuantization
    | DynamicQuantization
    | WeightQuantization
    | HalfPrecision
    | Compaction
    | RuntimeFusion,
    Field(discriminator="method"),
]

__all__ = [
    "FILES",
    "AnyPass",
    "ChannelPruning",
    "Compaction",
    "Context",
    "CrossLayerEqualization",
    "DynamicQuantization",
    "GraphCleaning",
    "HalfPrecision",
    "MagnitudePruning",
    "Pass",
    "RuntimeFusion",
    "SmoothQuantization",
    "StaticQuantization",
    "Target",
    "WeightQuantization",
]
