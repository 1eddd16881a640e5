"""int8: which nodes, from which graph, with which ranges, and how they are written."""

from worker.compression.quantization.bias_correction import FEWEST_SAMPLES, bias_corrections
from worker.compression.quantization.calibrating import Calibration
from worker.compression.quantization.choice import Choice, choose
from worker.compression.quantization.compensation import add_to_bias, compensated_weights
from worker.compression.quantization.dynamic import (
    DYNAMIC_OPS,
    FAST_DYNAMIC_OPS,
    DynamicOptions,
    Outcome,
    insert_dynamic,
    prepare_dynamic,
)
from worker.compression.quantization.halves import computes_in_half
from worker.compression.quantization.insertion import Format, Options, insert, weight_axis
from worker.compression.quantization.operators import (
    DEFAULT_OPS,
    FLOAT_OUTPUT,
    INT8_OPS,
    INTEGER_FLOAT_OUTPUT,
)
from worker.compression.quantization.preparation import prepare
from worker.compression.quantization.qoperator import insert_qoperators
from worker.compression.quantization.scales import QuantizedWeight, quantize_weight

__all__ = [
    "DEFAULT_OPS",
    "DYNAMIC_OPS",
    "FAST_DYNAMIC_OPS",
    "FEWEST_SAMPLES",
    "FLOAT_OUTPUT",
    "INT8_OPS",
    "INTEGER_FLOAT_OUTPUT",
    "Calibration",
    "Choice",
    "DynamicOptions",
    "Format",
    "Options",
    "Outcome",
    "QuantizedWeight",
    "add_to_bias",
    "bias_corrections",
    "choose",
    "compensated_weights",
    "computes_in_half",
    "insert",
    "insert_dynamic",
    "insert_qoperators",
    "prepare",
    "prepare_dynamic",
    "quantize_weight",
    "weight_axis",
]
