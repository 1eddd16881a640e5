"""int8: which nodes, from which graph, with which ranges; ONNX Runtime's tools write it."""

from worker.compression.quantization.choice import DEFAULT_OPS, INT8_OPS, Choice, choose
from worker.compression.quantization.insertion import Format, Options, insert
from worker.compression.quantization.preparation import prepare

__all__ = [
    "DEFAULT_OPS",
    "INT8_OPS",
    "Choice",
    "Format",
    "Options",
    "choose",
    "insert",
    "prepare",
]
