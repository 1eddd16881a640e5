"""A model over 2 GB goes by path and external data all the way."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

LAYERS, WIDTH = 9, 8192
BYTES = LAYERS * WIDTH * WIDTH * 4

SCRIPT = """
import json, resource, sys
from pathlib import Path

import numpy as np

from tests.models import context
from worker.compression import graph
from worker.compression.passes import StaticQuantization

folder = Path(sys.argv[1])
rng = np.random.default_rng(1)
feeds = [{"x": rng.standard_normal((1, 8192), np.float32)} for _ in range(2)]
(folder / "work").mkdir()
model = graph.load(folder / "model.onnx")
result = StaticQuantization().apply(model, context(folder / "work", feeds))
graph.save(result, folder / "int8.onnx")
peak = 1000 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak": peak, "bytes": graph.file_bytes(folder / "int8.onnx")}))
"""


def large(folder: Path) -> None:
    """A chain of Gemms whose weights are written layer by layer."""
    rng = np.random.default_rng(0)
    weights, nodes = [], []
    with (folder / "w.bin").open("wb") as file:
        for number in range(LAYERS):
            (rng.standard_normal((WIDTH, WIDTH), np.float32) * np.float32(0.01)).tofile(file)
            tensor = TensorProto(
                name=f"w{number}",
                data_type=TensorProto.FLOAT,
                dims=[WIDTH, WIDTH],
                data_location=TensorProto.EXTERNAL,
            )
            place = {"location": "w.bin", "offset": number * WIDTH * WIDTH * 4}
            for key, value in {**place, "length": WIDTH * WIDTH * 4}.items():
                tensor.external_data.add(key=key, value=str(value))
            weights.append(tensor)
            nodes.append(
                helper.make_node("Gemm", [f"h{number}", f"w{number}"], [f"h{number + 1}"])
            )
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    ends = [helper.make_tensor_value_info(name, 1, [1, WIDTH]) for name in "xy"]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "model.onnx"
    )


@pytest.mark.system
def test_a_model_over_two_gigabytes_is_never_in_memory_twice(tmp_path: Path) -> None:
    large(tmp_path)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["peak"] < 1.6 * BYTES
    assert found["bytes"] < 0.26 * BYTES
