"""The form that is analysed: constants as initializers, unique names, small ones unshared."""

import onnx_ir as ir
from onnx_ir.passes import common

from worker.compression.graph.counting import name_nodes

# Exporters share equal biases and scales between layers that have nothing else in common.
_UNSHARED_SIZE = 65_536


def prepare(model: ir.Model) -> ir.Model:
    """Change the model to that form; what it computes stays the same."""
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.RemoveInitializersFromInputsPass()(model)
    common.RemoveUnusedNodesPass()(model)
    model.graph.sort()
    name_nodes(model)
    for value in list(model.graph.initializers.values()):
        _unshare(model.graph, value)
    return model


def _unshare(graph: ir.Graph, value: ir.Value) -> None:
    """Give each use of a small vector a copy of its own; matrices that are tied stay tied."""
    tensor = value.const_value
    if tensor is None or tensor.size > _UNSHARED_SIZE or value.is_graph_output():
        return
    if sum(size > 1 for size in tensor.shape.numpy()) > 1:
        return
    for position, (node, index) in enumerate(list(value.uses())[1:]):
        if node.graph is not graph:
            continue
        name = f"{value.name}.use{position}"
        copy = ir.Value(name=name, type=value.type, shape=value.shape, const_value=tensor)
        graph.register_initializer(copy)
        node.replace_input_with(index, copy)
