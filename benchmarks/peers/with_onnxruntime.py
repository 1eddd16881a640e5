"""Run by the peer's own Python: `with_onnxruntime.py RECIPE MODEL FEEDS OUT`.

`default` and `dynamic` are the quantizers with no option given. The expert recipes raise the
opset to 17 where it is below 13, pre-process, and quantize U8 activations by S8 weights with a
scale for each channel; `products` leaves all but Conv, MatMul and Gemm float.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

METHODS = {
    "expert-minmax": CalibrationMethod.MinMax,
    "expert-percentile": CalibrationMethod.Percentile,
    "expert-entropy": CalibrationMethod.Entropy,
    "expert-products": CalibrationMethod.MinMax,
}
PRODUCTS = ["Conv", "ConvTranspose", "MatMul", "Gemm"]
LEAST_OPSET, OPSET = 13, 17


class Reader(CalibrationDataReader):
    def __init__(self, feeds):
        self.feeds = iter(feeds)

    def get_next(self):
        return next(self.feeds, None)


def read(path):
    arrays, feeds = np.load(path), {}
    for key in arrays.files:
        number, _, name = key.partition("|")
        feeds.setdefault(int(number), {})[name] = arrays[key]
    return [feeds[number] for number in sorted(feeds)]


def prepared(model, out):
    raised, ready = out.with_suffix(".raised"), out.with_suffix(".ready")
    loaded = onnx.load(model)
    if (
        next(o.version for o in loaded.opset_import if o.domain in ("", "ai.onnx"))
        < LEAST_OPSET
    ):
        loaded = onnx.version_converter.convert_version(loaded, OPSET)
    onnx.save(loaded, raised)
    try:
        quant_pre_process(raised, ready)
    except Exception:  # as its users do: symbolic shape inference fails on many models
        quant_pre_process(raised, ready, skip_symbolic_shape=True)
    return ready


def main(recipe, model, feeds, out):
    out = Path(out)
    if recipe == "dynamic":
        quantize_dynamic(model, out)
    elif recipe == "default":
        quantize_static(model, out, Reader(read(feeds)))
    else:
        expert(recipe, prepared(model, out), read(feeds), out)


def expert(recipe, model, feeds, out):
    def quantize(**more):
        quantize_static(
            model,
            out,
            Reader(feeds),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=METHODS[recipe],
            op_types_to_quantize=PRODUCTS if recipe == "expert-products" else None,
            **more,
        )

    try:
        quantize()
    except ValueError as failure:
        # Of 1.32 on some biases with a scale for each channel; who knows it switches that off.
        if "truth value" not in str(failure):
            raise
        quantize(extra_options={"QDQDisableWeightAdjustForInt32Bias": True})


if __name__ == "__main__":
    main(*sys.argv[1:])
