"""Run by the peer's own Python: `with_onnxsim.py RECIPE MODEL FEEDS OUT`."""

import sys

import numpy as np
import onnx
import onnxsim


def read(path):
    arrays, feeds = np.load(path), {}
    for key in arrays.files:
        number, _, name = key.partition("|")
        feeds.setdefault(int(number), {})[name] = arrays[key]
    return [feeds[number] for number in sorted(feeds)]


def main(recipe, model, feeds, out):
    simpler, _ = onnxsim.simplify(onnx.load(model))
    if recipe == "static":
        simpler = onnxsim.quantize_static(simpler, calibration_data=read(feeds))
    onnx.save(simpler, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
