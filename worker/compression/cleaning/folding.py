"""BatchNorm folded into the layer before it: W' = W * s, b' = (b - mean) * s + beta."""

import numpy as np
import onnx_ir as ir

from worker.compression.graph import constant, free_name

# The axis of the weight that holds its output channels.
_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1}


def fold_batch_norm(model: ir.Model) -> int:
    """Fold every BatchNorm behind Conv, ConvTranspose or Gemm, in place; gives how many."""
    norms = [
        node for node in model.graph if node.op_type == "BatchNormalization" and not node.domain
    ]
    return sum(_fold(model.graph, norm) for norm in norms)


def _fold(graph: ir.Graph, norm: ir.Node) -> bool:
    layer = norm.inputs[0].producer() if norm.inputs[0] is not None else None
    numbers = [_floats(value) for value in norm.inputs[1:5]]
    if layer is None or not _foldable(layer, norm) or any(array is None for array in numbers):
        return False
    weight = _floats(layer.inputs[1])
    bias = _floats(layer.inputs[2]) if len(layer.inputs) > 2 else np.float32(0)
    if weight is None or bias is None:
        return False
    scale, shift, mean, variance = (array for array in numbers if array is not None)
    factor = scale / np.sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    scaled = weight * _along(factor, weight.ndim, _axis(layer))
    if layer.op_type == "ConvTranspose" and layer.attributes.get_int("group", 1) != 1:
        return False
    _put(graph, layer, 1, scaled)
    _put(graph, layer, 2, (bias - mean) * factor + shift)
    _take_over(graph, layer, norm)
    return True


def _put(graph: ir.Graph, layer: ir.Node, index: int, array: np.ndarray) -> None:
    """Give the layer another constant, under the name that people know it by."""
    old = layer.inputs[index] if index < len(layer.inputs) else None
    layer.resize_inputs(max(index + 1, len(layer.inputs)))
    name = _bias_name(layer) if old is None else old.name or ""
    layer.replace_input_with(index, None)
    if old is not None and old.is_initializer() and not old.uses():
        graph.initializers.pop(name, None)
    name = free_name(graph, name)
    tensor = ir.tensor(array.astype(np.float32), name=name)
    value = ir.Value(name=name, const_value=tensor)
    graph.register_initializer(value)
    layer.replace_input_with(index, value)


def _bias_name(layer: ir.Node) -> str:
    weight = layer.inputs[1]
    name = "" if weight is None else weight.name or ""
    return f"{name.removesuffix('.weight')}.bias"


def _take_over(graph: ir.Graph, layer: ir.Node, norm: ir.Node) -> None:
    """The layer gives what the BatchNorm gave, under its name."""
    made, kept = layer.outputs[0], norm.outputs[0]
    name = kept.name
    kept.replace_all_uses_with(made, replace_graph_outputs=True)
    graph.remove(norm, safe=True)
    made.name = name


def _foldable(layer: ir.Node, norm: ir.Node) -> bool:
    made = layer.outputs[0]
    alone = len(made.uses()) == 1 and not made.is_graph_output()
    plain = layer.op_type != "Gemm" or (
        layer.attributes.get_float("alpha", 1.0) == 1.0
        and layer.attributes.get_float("beta", 1.0) == 1.0
    )
    inference = norm.attributes.get_int("training_mode", 0) == 0 and len(norm.outputs) == 1
    same_graph = layer.graph is norm.graph
    return layer.op_type in _CHANNEL_AXIS and alone and plain and inference and same_graph


def _axis(layer: ir.Node) -> int:
    if layer.op_type == "Gemm" and layer.attributes.get_int("transB", 0) == 1:
        return 0
    return _CHANNEL_AXIS[layer.op_type]


def _along(factor: np.ndarray, rank: int, axis: int) -> np.ndarray:
    shape = [1] * rank
    shape[axis] = -1
    return factor.reshape(shape)


def _floats(value: ir.Value | None) -> np.ndarray | None:
    """A float32 constant as float64, so that folding rounds once."""
    tensor = constant(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    return tensor.numpy().astype(np.float64)
