"""Operators of integers, with ranges of our own.

onnxruntime.quantization writes the QLinear ones, whose outputs are int8.
"""

import logging
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode

from worker.compression.quantization.guarding import guard_float_layers
from worker.compression.quantization.insertion import Options, Ranges
from worker.compression.quantization.integers import write_integer_products
from worker.compression.quantization.operators import absorbed, data_inputs, scaled_by
from worker.compression.quantization.scales import Scale, activation_scale

# The mark that spares the quantizer its own shape inference, which fails on odd graphs and
# writes beside the model; types come from the calibration instead.
_INFERRED = ("onnx.infer", "onnxruntime.quant")


def insert_qoperators(
    path: Path, nodes: Sequence[ir.Node], ranges: Ranges, options: Options
) -> ir.Model:
    """Replace the chosen nodes of a prepared model file by operators of integers."""
    products = [node for node in nodes if node.op_type in options.float_outputs]
    others = [node for node in nodes if node.op_type not in options.float_outputs]
    quantized: ir.Model = ir.from_proto(_quantized(onnx.load(path), others, ranges, options))
    write_integer_products(
        quantized,
        {node.name or "" for node in products},
        _scales(products, set(nodes), ranges, options),
        options,
    )
    # The quantizer's own sort does not see what bodies of If and Loop read.
    quantized.graph.sort()
    guard_float_layers(quantized)
    return quantized


def _quantized(
    proto: onnx.ModelProto, nodes: Sequence[ir.Node], ranges: Ranges, options: Options
) -> onnx.ModelProto:
    if not nodes:
        return proto
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in _float_tensors(nodes)
    )
    proto.metadata_props.add(key=_INFERRED[0], value=_INFERRED[1])
    with _quiet():
        quantizer = _quantizer(proto, nodes, _tensor_data(nodes, ranges), options)
        quantizer.quantize_model()
    result: onnx.ModelProto = quantizer.model.model
    kept = [entry for entry in result.metadata_props if entry.key != _INFERRED[0]]
    del result.metadata_props[:]
    result.metadata_props.extend(kept)
    return result


def _scales(
    nodes: Sequence[ir.Node], chosen: Set[ir.Node], ranges: Ranges, options: Options
) -> dict[str, Scale]:
    """Scales of the activations that the nodes read, by name."""
    found = {}
    for node in nodes:
        for value in node.inputs:
            source = scaled_by(value, chosen)
            limits = None if source is None else ranges.get(source.name or "")
            if value is not None and limits is not None:
                found[value.name or ""] = activation_scale(*limits, options.activation_type)
    return found


def _quantizer(
    proto: onnx.ModelProto,
    nodes: Sequence[ir.Node],
    ranges: TensorsData,
    options: Options,
) -> Any:  # noqa: ANN401 - onnxruntime has no types
    extra = {"WeightSymmetric": True, "ActivationSymmetric": False}
    return ONNXQuantizer(
        proto,
        options.per_channel,
        options.seven_bit_weights,
        QuantizationMode.QLinearOps,
        True,
        QuantType.QInt8,
        QuantType.QInt8 if options.signed_activations else QuantType.QUInt8,
        ranges,
        [node.name for node in nodes],
        [],
        sorted({node.op_type for node in nodes}),
        extra,
    )


def _tensor_data(nodes: Sequence[ir.Node], ranges: Ranges) -> TensorsData:
    whole = dict(ranges)
    for node in absorbed(nodes):
        before, after = node.inputs[0], node.outputs[0]
        if before is not None and after.name in ranges:
            whole[before.name or ""] = ranges[after.name or ""]
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in whole.items()
    }
    return TensorsData(CalibrationMethod.MinMax, data)


def _float_tensors(nodes: Sequence[ir.Node]) -> list[str]:
    """Activations that the chosen nodes read as data or make."""
    names: dict[str, None] = {}
    for node in nodes:
        for value in (*(node.inputs[index] for index in data_inputs(node)), *node.outputs):
            if value is not None and value.const_value is None:
                names[value.name or ""] = None
    return list(names)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the root logger, which the quantizer writes its advice to."""
    root = logging.getLogger()

    def refuse(record: logging.LogRecord) -> bool:
        return "quantization" not in record.pathname

    root.addFilter(refuse)
    try:
        yield
    finally:
        root.removeFilter(refuse)
