"""Run by the peer's own Python: `with_nncf.py RECIPE MODEL FEEDS OUT`."""

import sys

import nncf
import numpy as np
import onnx


def read(path):
    arrays, feeds = np.load(path), {}
    for key in arrays.files:
        number, _, name = key.partition("|")
        feeds.setdefault(int(number), {})[name] = arrays[key]
    return [feeds[number] for number in sorted(feeds)]


def main(recipe, model, feeds, out):
    kind = {"model_type": nncf.ModelType.TRANSFORMER} if recipe == "transformer" else {}
    data = nncf.Dataset(read(feeds))
    onnx.save(nncf.quantize(onnx.load(model), data, **kind), out)


if __name__ == "__main__":
    main(*sys.argv[1:])
