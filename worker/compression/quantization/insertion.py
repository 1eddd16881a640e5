"""Q and DQ, or QLinear operators: onnxruntime.quantization, with ranges of our own."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.onnx_quantizer import ONNXQuantizer
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.quant_utils import QuantizationMode

from worker.compression.quantization.choice import FLOAT_OUTPUT, JOINS, absorbed

Format = Literal["qdq", "qoperator"]

# The mark that spares the quantizer its own shape inference, which fails on odd graphs and
# writes beside the model; types come from the calibration instead.
_SEVERAL_INPUTS = (*JOINS, "MatMul")
_INFERRED = ("onnx.infer", "onnxruntime.quant")


@dataclass(frozen=True)
class Options:
    """How numbers are written."""

    format: Format
    signed_activations: bool
    seven_bit_weights: bool
    per_channel: bool
    float_outputs: bool


def insert(
    path: Path,
    nodes: Sequence[ir.Node],
    ranges: Mapping[str, tuple[float, float]],
    options: Options,
) -> ir.Model:
    """Quantize the chosen nodes of a prepared model file."""
    proto = onnx.load(path)
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in _float_tensors(nodes)
    )
    proto.metadata_props.add(key=_INFERRED[0], value=_INFERRED[1])
    with _quiet():
        quantizer = _quantizer(proto, nodes, _tensor_data(nodes, ranges), options)
        quantizer.quantize_model()
    result = quantizer.model.model
    kept = [entry for entry in result.metadata_props if entry.key != _INFERRED[0]]
    del result.metadata_props[:]
    result.metadata_props.extend(kept)
    quantized: ir.Model = ir.from_proto(result)
    # The quantizer's own sort does not see what bodies of If and Loop read.
    quantized.graph.sort()
    return quantized


def _quantizer(
    proto: onnx.ModelProto,
    nodes: Sequence[ir.Node],
    ranges: TensorsData,
    options: Options,
) -> Any:  # noqa: ANN401 - onnxruntime has no types
    names = [node.name for node in nodes]
    ops = sorted({node.op_type for node in nodes})
    activations = QuantType.QInt8 if options.signed_activations else QuantType.QUInt8
    extra: dict[str, Any] = {
        "WeightSymmetric": True,
        "ActivationSymmetric": False,
        "TensorQuantOverrides": _overrides(proto, nodes) if options.per_channel else {},
        "OpTypesToExcludeOutputQuantization": list(FLOAT_OUTPUT)
        if options.float_outputs
        else [],
    }
    given = (proto, options.per_channel, options.seven_bit_weights)
    if options.format == "qoperator":
        mode = QuantizationMode.QLinearOps
        extra.pop("TensorQuantOverrides")
        return ONNXQuantizer(
            *given, mode, True, QuantType.QInt8, activations, ranges, names, [], ops, extra
        )
    return QDQQuantizer(*given, QuantType.QInt8, activations, ranges, names, [], ops, extra)


def _overrides(
    proto: onnx.ModelProto, nodes: Sequence[ir.Node]
) -> dict[str, list[dict[str, Any]]]:
    """One scale for the weights of a MatMul whose channels are not on axis 1."""
    matmuls = [node for node in nodes if node.op_type == "MatMul"]
    names = {
        value.name or ""
        for node in matmuls
        for index, value in enumerate(node.inputs)
        if value is not None
        and value.const_value is not None
        and (index == 0 or len(value.const_value.shape) != 2)
    }
    return {name: [{"quant_type": QuantType.QInt8, "symmetric": True}] for name in names}


def _tensor_data(
    nodes: Sequence[ir.Node], ranges: Mapping[str, tuple[float, float]]
) -> TensorsData:
    whole = dict(ranges)
    for gone, kept in absorbed(nodes).items():
        if kept in ranges:
            whole[gone] = ranges[kept]
    data = {
        name: TensorData(lowest=np.float32(low), highest=np.float32(high))
        for name, (low, high) in whole.items()
    }
    return TensorsData(CalibrationMethod.MinMax, data)


def _float_tensors(nodes: Sequence[ir.Node]) -> list[str]:
    """Activations that the chosen nodes read as data or make."""
    names: dict[str, None] = {}
    for node in nodes:
        read = (
            node.inputs
            if node.op_type in ("Add", "Mul", "Concat", "MatMul")
            else node.inputs[:1]
        )
        for value in (*read, *node.outputs):
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
