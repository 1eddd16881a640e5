"""The graph that quantization needs: plain float32 initializers, one role each, opset 13."""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from worker.compression import graph
from worker.compression.cleaning import constants_lifted, opset_raised, shapes_inferred
from worker.compression.errors import PassFailed
from worker.compression.quantization.halves import widen

_OLDEST_OPSET = 13
# The inputs of an operator that hold the data to quantize.
_DATA_INPUTS = {"Conv": (1,), "Gemm": (1,), "MatMul": (0, 1), "Gather": (0,)}
_BIAS_INPUTS = {"Conv": 2, "Gemm": 2}
# Those that must be initializers of their own: exporters hang equal ones on Identity nodes.
_CONSTANT_INPUTS = {**_DATA_INPUTS, "Conv": (1, 2), "Gemm": (1, 2)}
# What onnxruntime's quantizer appends to a tensor's name; it takes over a tensor that has the
# name already, with whatever that tensor holds.
_SUFFIXES = (
    "_scale", "_zero_point", "_quantized", "_quantized_scale", "_quantized_zero_point",
    "_QuantizeLinear_Output", "_QuantizeLinear_Input", "_DequantizeLinear_Output",
)  # fmt: skip


def prepare(model: ir.Model) -> ir.Model:
    """Bring a model, which may not have been cleaned, into the form that quantization needs.

    Raises:
        PassFailed: its operator set is too old and cannot be raised.
    """
    model = raised(model, _OLDEST_OPSET)
    graph.name_nodes(model)
    widen(model)
    model = shapes_inferred(model)
    _fold_weights(model)
    _fuse_biases(model)
    _part_roles(model)
    _part_biases(model)
    _free_names(model)
    return common.RemoveUnusedNodesPass()(model).model


def raised(model: ir.Model, oldest: int) -> ir.Model:
    """Constants as initializers, functions inlined, and an operator set that is not older.

    Raises:
        PassFailed: its operator set is too old and cannot be raised.
    """
    model = constants_lifted(model)
    before = graph.opset(model)
    if before >= oldest:
        return model
    try:
        return constants_lifted(opset_raised(model))
    except Exception as error:
        raise PassFailed(
            f"the model's operator set {before} cannot be raised to {oldest}, which "
            f"int8 needs: {str(error)[:200]}",
            hint=f"export the model again with opset {oldest} or above",
        ) from error


def _fold_weights(model: ir.Model) -> None:
    """Compute Identity, Transpose, Reshape and Cast of weights and biases once and for all."""
    made: dict[tuple[ir.Value, bytes], ir.Value] = {}
    for node in list(model.graph):
        for index in _CONSTANT_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            source = graph.source_of(value)
            if source is None or not source[1] or node.domain:
                continue
            array = _computed(source[0], source[1])
            digest = hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).digest()
            key = source[0], digest
            if key not in made:
                name = f"{source[0].name}_folded_{len(made)}"
                made[key] = _initializer(model, name, array)
            node.replace_input_with(index, made[key])


def _part_roles(model: ir.Model) -> None:
    """Give every role of a shared initializer a copy of its own: scales differ by role."""
    copies: dict[tuple[ir.Value, str], ir.Value] = {}
    first: dict[ir.Value, str] = {}
    for node in list(model.graph):
        for index in _DATA_INPUTS.get(node.op_type, ()):
            value = node.inputs[index] if index < len(node.inputs) else None
            tensor = None if value is None else value.const_value
            if value is None or tensor is None or tensor.dtype != ir.DataType.FLOAT:
                continue
            role = f"{node.op_type}{index}{node.attributes.get_int('transB', 0)}"
            others = _read_by_others(value, _DATA_INPUTS)
            if first.setdefault(value, role) == role and not others:
                continue
            if (value, role) not in copies:
                name = f"{value.name}_for_{role}"
                copies[value, role] = _initializer(model, name, tensor.numpy())
            node.replace_input_with(index, copies[value, role])


def _part_biases(model: ir.Model) -> None:
    """Give every layer a bias of its own: its scale is that of the layer's input and weight.

    The quantizer does so too, under a name that it does not check: basic_pitch has a bias
    `conv1d_25`, whose copy `conv1d_252` is the name of an activation.
    """
    taken: set[ir.Value] = set()
    for node in list(model.graph):
        index = _BIAS_INPUTS.get(node.op_type)
        bias = node.inputs[index] if index is not None and index < len(node.inputs) else None
        if index is None or bias is None or bias.const_value is None:
            continue
        if bias in taken or _read_by_others(bias, _BIAS_INPUTS):
            copy = _initializer(model, f"{bias.name}_of_{node.name}", bias.const_value.numpy())
            node.replace_input_with(index, copy)
        taken.add(bias)


def _read_by_others(value: ir.Value, roles: Collection[str]) -> bool:
    """Whether a body of If or Loop, or an operator of another kind, reads a constant."""
    return any(
        use.node.op_type not in roles or use.node.graph is not value.graph
        for use in value.uses()
    )


def _fuse_biases(model: ir.Model) -> None:
    """Turn MatMul and Add of rank 2 into Gemm.

    ONNX Runtime does so at load; behind Q and DQ its Gemm would then stay float, since the
    bias is no int32.
    """
    for node in list(model.graph):
        add = _bias_add(node)
        if add is None:
            continue
        added = next(v for v in add.inputs if v is not None and v is not node.outputs[0])
        flat = added.const_value.numpy().ravel() if added.const_value is not None else None
        bias = added if flat is None else _initializer(model, f"{node.name}_bias", flat)
        made = ir.node("Gemm", [*node.inputs, bias], name=node.name, num_outputs=1)
        made.outputs[0].type, made.outputs[0].shape = add.outputs[0].type, add.outputs[0].shape
        name = add.outputs[0].name
        model.graph.insert_before(node, made)
        add.outputs[0].replace_all_uses_with(made.outputs[0], replace_graph_outputs=True)
        model.graph.remove([add, node], safe=True)
        made.outputs[0].name = name


def _bias_add(node: ir.Node) -> ir.Node | None:
    """The Add that gives a MatMul of rank 2 its bias."""
    made = node.outputs[0]
    if node.op_type != "MatMul" or node.domain or len(made.uses()) != 1:
        return None
    left, right = node.inputs
    if left is None or right is None or right.const_value is None or made.is_graph_output():
        return None
    add = next(iter(made.uses())).node
    bias = [value for value in add.inputs if value is not made]
    tensor = bias[0].const_value if len(bias) == 1 and bias[0] is not None else None
    flat = left.shape is not None and len(left.shape) == 2 and len(right.const_value.shape) == 2
    if add.op_type != "Add" or add.graph is not node.graph or tensor is None or not flat:
        return None
    channels = right.const_value.shape[1]
    return add if tuple(tensor.shape) in {(channels,), (1, channels)} else None


def _free_names(model: ir.Model) -> None:
    """Rename tensors whose names the quantizer would take for its own."""
    held = [value for part in model.graphs() for value in part.initializers.values()]
    made = [value for node in model.graph.all_nodes() for value in node.outputs]
    names = {value.name for value in (*held, *made, *model.graph.inputs)}
    interface = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    for value in (*held, *made):
        name = value.name or ""
        base = next((name.removesuffix(end) for end in _SUFFIXES if name.endswith(end)), None)
        if base in names and name not in interface:
            value.name = f"{name}_of_the_model"


def _computed(source: ir.Value, path: Sequence[ir.Node]) -> np.ndarray:
    tensor = graph.constant(source)
    if tensor is None:
        raise ValueError(f"{source.name} is not constant")
    use = graph.Use(path[-1], 0, tuple(path))
    casts = [step.attributes.get_int("to", 1) for step in path if step.op_type == "Cast"]
    array = use.arranged(tensor.numpy())
    return np.ascontiguousarray(
        array.astype(ir.DataType(casts[-1]).numpy()) if casts else array
    )


def _initializer(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    name = graph.free_name(model.graph, name)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    model.graph.register_initializer(value)
    return value
