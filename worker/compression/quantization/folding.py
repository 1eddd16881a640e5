"""Values that constants alone determine, however many operators stand between."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from worker.compression.graph import constant

_RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"}
_BODIES = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}
# Exporters put a dozen operators between the gates of an LSTM and its weight.
_MOST_NODES = 64


def folded(value: ir.Value | None, *, opset: int) -> np.ndarray | None:
    """What a value holds whatever the model is fed; None where that depends on its inputs."""
    tensor = constant(value)
    if tensor is not None:
        return tensor.numpy()
    if value is None:
        return None
    nodes: dict[ir.Node, None] = {}
    if not _derived(value, nodes):
        return None
    return _computed(value, list(nodes), opset)


def _derived(value: ir.Value, nodes: dict[ir.Node, None]) -> bool:
    """Whether a value follows from constants; `nodes` gets what computes it, in order."""
    node = value.producer()
    if node is None or node.domain not in ("", "ai.onnx") or node.op_type in _RANDOM:
        return False
    if any(attribute.type in _BODIES for attribute in node.attributes.values()):
        return False
    if node in nodes:
        return True
    for read in node.inputs:
        if read is not None and constant(read) is None and not _derived(read, nodes):
            return False
    nodes[node] = None
    return bool(node.inputs) and len(nodes) <= _MOST_NODES


def _computed(value: ir.Value, nodes: list[ir.Node], opset: int) -> np.ndarray | None:
    """Run the nodes by themselves in ONNX Runtime; None where it has no kernel for them."""
    known: dict[ir.Value | None, ir.Value | None] = {None: None}
    held: list[ir.Value] = []
    copies = []
    for node in nodes:
        for read in node.inputs:
            if read not in known:
                held.append(_held(read, f"held_{len(held)}"))
                known[read] = held[-1]
        copy = ir.Node(
            "",
            node.op_type,
            [known[read] for read in node.inputs],
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
        )
        for made, own in zip(node.outputs, copy.outputs, strict=True):
            own.name = f"made_{len(known)}"
            known[made] = own
        copies.append(copy)
    wanted = known[value]
    if wanted is None:
        return None
    graph = ir.Graph(
        [], [wanted], nodes=copies, initializers=held, opset_imports={"": opset}, name="folded"
    )
    return _run(ir.to_proto(ir.Model(graph, ir_version=8)))


def _held(value: ir.Value | None, name: str) -> ir.Value:
    tensor = constant(value)
    if tensor is None:
        raise ValueError(f"{name} is not constant")
    return ir.Value(name=name, const_value=ir.Tensor(tensor.numpy(), tensor.dtype, name=name))


def _run(proto: onnx.ModelProto) -> np.ndarray | None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (made,) = session.run(None, {})
    except Exception:  # whatever ONNX Runtime raises: it cannot be computed ahead
        return None
    return np.asarray(made)
