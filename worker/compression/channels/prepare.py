"""The form that is analysed: constants as initializers, unique names, small ones unshared."""

import onnx_ir as ir
from onnx_ir.passes import common

from worker.compression.channels.rules.recurrent import GATES
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
    _name_states(model)
    for value in list(model.graph.initializers.values()):
        _unshare(model.graph, value)
    return model


def _name_states(model: ir.Model) -> None:
    """Let recurrent layers show all states, where only the last one is read."""
    for node in model.graph:
        if node.op_type in GATES and not node.outputs[0].name:
            node.outputs[0].name = f"{node.name}.states"


def _unshare(graph: ir.Graph, value: ir.Value) -> None:
    """Give each use of a small vector a copy of its own; matrices that are tied stay tied.

    What holds one number only, as initial states do, ties nothing either.
    """
    tensor = value.const_value
    if tensor is None or tensor.size > _UNSHARED_SIZE or value.is_graph_output():
        return
    if len(list(value.uses())) < 2 or not (_is_vector(tensor) or _is_uniform(tensor)):
        return
    for position, (node, index) in enumerate(list(value.uses())[1:]):
        if node.graph is not graph:
            continue
        name = f"{value.name}.use{position}"
        copy = ir.Value(name=name, type=value.type, shape=value.shape, const_value=tensor)
        graph.register_initializer(copy)
        node.replace_input_with(index, copy)


def _is_vector(tensor: ir.TensorProtocol) -> bool:
    return sum(size > 1 for size in tensor.shape.numpy()) <= 1


def _is_uniform(tensor: ir.TensorProtocol) -> bool:
    array = tensor.numpy()
    return bool((array == array.flat[0]).all())
